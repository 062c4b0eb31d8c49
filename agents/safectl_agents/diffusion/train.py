"""Training of a diffusion model of plans: Adam on the clean plan, averaged weights, resumable.

The rows and the noise of an update depend on the seed and its number only, so a run that was
stopped goes on as if it had not been.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from safectl.errors import ConfigError, FileFormatError, NonFiniteError, RangeError
from safectl.files import new_folder, read_json, write_json
from safectl.models import TemporalUnet
from safectl.planners.schedule import cosine_schedule
from safectl.seed import derive, torch_generator
from safectl_agents.diffusion.settings import DiffuserConfig

_ADVICE = "delete the folder and train again"
_LOG_EVERY = 100


class PlanRows(NamedTuple):
    """Normalised transitions in one row after the other, and where a plan may begin.

    Attributes:
        transitions: Action, then observation, shape (rows, D).
        starts: First rows of plans, shape (plans,); a plan is the H rows from there.
    """

    transitions: Float[Tensor, "rows D"]
    starts: Int[Tensor, " plans"]

    def choose(self, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
        """Return which plans are drawn, with replacement."""
        return torch.randint(len(self.starts), (count,), generator=generator)

    def plans(self, chosen: Int[Tensor, " count"], horizon: int) -> Float[Tensor, "count H D"]:
        """Return plans by their number."""
        return self.transitions[self.starts[chosen].unsqueeze(-1) + torch.arange(horizon)]


class Trainer:
    """A network, its averaged copy and the optimiser, at some update.

    Args:
        config: Settings.
        data: Plans to learn.
        nu: Number of actions.
        device: Where to train.
        compiles: Compile the network by `torch.compile`, on a GPU with CUDA graphs.

    Raises:
        RangeError: If there is no plan.
    """

    def __init__(
        self,
        config: DiffuserConfig,
        data: PlanRows,
        *,
        nu: int,
        device: str = "cpu",
        compiles: bool = False,
    ) -> None:
        if len(data.starts) == 0:
            expected = f"at least one episode of more than {config.horizon} steps"
            raise RangeError("plans in the data", value=0, expected=expected)
        self.config, self.data, self.nu, self.device = config, data, nu, device
        self.network = self._first_network().to(device)
        self.average = deepcopy(self.network)
        mode = "reduce-overhead" if device.startswith("cuda") else "default"
        self._run = torch.compile(self.network, mode=mode) if compiles else self.network
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.kept = cosine_schedule(config.diffusion_steps).to(torch.float32)
        self.update = 0

    def step(self) -> float:
        """Do one update and return its loss.

        Raises:
            NonFiniteError: If the loss is NaN or infinite.
        """
        config = self.config
        loss = self._loss(torch_generator(config.seed, f"update {self.update}"))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        self.optimizer.step()
        self.update += 1
        if self.update % config.ema_every == 0:
            self._average()
        found = float(loss.detach())
        if found != found or found == float("inf"):
            raise NonFiniteError("loss", count=1, size=1, advice="lower the learning rate")
        return found

    def _first_network(self) -> nn.Module:
        return make_network(self.config, self.data.transitions.shape[1])

    @property
    def settings(self) -> dict[str, object]:
        """What a checkpoint must share to go on, JSON values only."""
        return _json(self.config)

    def _loss(self, generator: torch.Generator) -> Tensor:
        """Weighted squared error of the clean plan; what is imposed is exact on both sides."""
        _, plan, noisy, index = self._noisy_plans(generator)
        error = (self._impose(self._run(noisy, index), plan) - plan).square()
        weight = torch.ones_like(error[0])
        weight[0, : self.nu] = self.config.action_weight
        return (weight * error).mean()

    def _noisy_plans(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw plans: their numbers (on the CPU), the plans, the same with noise, and its index."""
        config = self.config
        chosen = self.data.choose(config.batch, generator)
        plan = self.data.plans(chosen, config.horizon)
        index = torch.randint(config.diffusion_steps, (config.batch,), generator=generator)
        noise = torch.randn(plan.shape, generator=generator)
        plan, index, noise = (each.to(self.device) for each in (plan, index, noise))
        kept = self.kept.to(plan)[index].reshape(-1, 1, 1)
        noisy = self._impose(kept.sqrt() * plan + (1.0 - kept).sqrt() * noise, plan)
        return chosen, plan, noisy, index

    def _impose(self, plan: Tensor, clean: Tensor) -> Tensor:
        imposed = plan.clone()
        imposed[:, 0, self.nu :] = clean[:, 0, self.nu :]
        if self.config.has_goal:
            imposed[:, -1, self.nu :] = clean[:, -1, self.nu :]
        return imposed

    @torch.no_grad()
    def _average(self) -> None:
        decay = 0.0 if self.update < self.config.ema_from else self.config.ema_decay
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for average, weight in pairs:
            average.lerp_(weight, 1.0 - decay)

    def save(self, folder: Path) -> None:
        """Write everything that is needed to go on.

        Raises:
            StorageError: If it cannot be written.
        """
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
        with new_folder(folder, replace=True) as draft:
            save_file(tensors, draft / "state.safetensors")
            write_json(draft / "state.json", {"update": self.update, "config": self.settings})

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            ConfigError: If it belongs to other settings.
            FileFormatError: If a file is damaged.
        """
        state = read_json(folder / "state.json", advice=_ADVICE)
        try:
            theirs, update = state["config"] | {"updates": 0}, int(state["update"])
            tensors = load_file(folder / "state.safetensors")
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise FileFormatError(folder, f"cannot be read ({error!r})", _ADVICE) from error
        if theirs != self.settings | {"updates": 0}:
            raise ConfigError(str(folder), f"holds a training of other settings; {_ADVICE}")
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".", 2)
                moments.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        try:
            for name, module in (("network", self.network), ("average", self.average)):
                module.load_state_dict({k: tensors[f"{name}.{k}"] for k in module.state_dict()})
        except (KeyError, RuntimeError) as error:
            raise FileFormatError(folder, f"has other weights ({error!r})", _ADVICE) from error
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.update = update


def make_network(config: DiffuserConfig, width: int) -> TemporalUnet:
    """Return the U-Net with first weights from the seed, without touching the global stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, "first weights"))
        return TemporalUnet(width, channels=config.channels, multipliers=config.multipliers)


def train(
    trainer: Trainer, folder: Path, *, after_update: Callable[[int, float], None]
) -> nn.Module:
    """Train to the end of the settings, from the last checkpoint in the folder if there is one.

    Writes TensorBoard curves to `folder/tensorboard` and checkpoints to `folder/state`.

    Args:
        trainer: At update zero.
        folder: Of the run.
        after_update: Called with the number of updates done and the loss.

    Returns:
        The averaged network.

    Raises:
        ConfigError, FileFormatError, StorageError, NonFiniteError: As the trainer.
    """
    config = trainer.config
    if (folder / "state").exists():
        trainer.load(folder / "state")
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        while trainer.update < config.updates:
            loss = trainer.step()
            if trainer.update % _LOG_EVERY == 0:
                writer.add_scalar("loss", loss, trainer.update)
            if trainer.update % config.checkpoint_every == 0 or trainer.update == config.updates:
                trainer.save(folder / "state")
            after_update(trainer.update, loss)
    return trainer.average


def _json(config: DiffuserConfig) -> dict[str, object]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(config).items()}

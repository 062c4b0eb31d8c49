"""The value of noisy plans, whose gradient guides the sampler to larger returns.

Source: M. Janner, Y. Du, J. Tenenbaum, S. Levine, "Planning with diffusion for flexible behavior
synthesis", ICML 2022: a network of its own learns the discounted return from the first state of a
plan to the end of the episode, at all noise levels of the planner.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from safectl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from safectl.config import overlay, to_mapping
from safectl.errors import FileFormatError, NonFiniteError, RangeError
from safectl.models import TemporalValue
from safectl.planners import Normaliser
from safectl.seed import derive
from safectl.spec import Spec
from safectl_agents.diffusion.model import read_normaliser, write_normaliser
from safectl_agents.diffusion.settings import DiffuserConfig
from safectl_agents.diffusion.train import PlanRows, Trainer


@dataclass(frozen=True, slots=True)
class ValueConfig:
    """What the return of a plan is.

    Raises:
        RangeError: If the discount is not in [0, 1].
    """

    discount: float = 0.99
    """Weight of a reward per step that it lies ahead."""
    penalty: float = -100.0
    """Added to the last reward of an episode that failed, in the unit of the reward."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount <= 1.0:
            raise RangeError("discount", value=self.discount, expected="a number in [0, 1]")


class Scaled(nn.Module):
    """A network whose output is mapped from about one to the unit of the return.

    Args:
        network: Of plans and diffusion indices.
        centre: Mean of the returns.
        scale: Their standard deviation, positive.
    """

    def __init__(self, network: nn.Module, centre: float, scale: float) -> None:
        super().__init__()
        self.network, self.centre, self.scale = network, centre, scale

    def forward(
        self, plan: Float[Tensor, "batch H D"], step: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Return the values."""
        found: Tensor = self.centre + self.scale * self.network(plan, step)
        return found


class ValueTrainer(Trainer):
    """A value network, its averaged copy and the optimiser, at some update.

    Args:
        config: Network, diffusion process and training; those of the planner that it guides.
        data: Plans.
        returns: Of each plan, in the order of `data.starts`.
        value: How the returns were made.
        nu: Number of actions.
        device: Where to train.
        compiles: As `Trainer`.

    Raises:
        RangeError: If there is no plan, or not one return per plan.
        NonFiniteError: If a return is NaN or infinite.
    """

    def __init__(
        self,
        config: DiffuserConfig,
        data: PlanRows,
        returns: Float[Tensor, " plans"],
        value: ValueConfig,
        *,
        nu: int,
        device: str = "cpu",
        compiles: bool = False,
    ) -> None:
        super().__init__(config, data, nu=nu, device=device, compiles=compiles)
        if len(returns) != len(data.starts):
            raise RangeError("returns", value=len(returns), expected=f"{len(data.starts)}")
        bad = int((~returns.isfinite()).sum())
        if bad:
            advice = "repair or drop these episodes"
            raise NonFiniteError("returns", count=bad, size=len(returns), advice=advice)
        self.value = value
        self.centre = float(returns.mean())
        self.scale = float(returns.std(correction=0)) or 1.0
        self._targets = (returns - self.centre) / self.scale

    @property
    def settings(self) -> dict[str, object]:
        """What a checkpoint must share to go on, JSON values only."""
        return super().settings | {"value": asdict(self.value)}

    def _first_network(self) -> nn.Module:
        return make_value_network(self.config, self.data.transitions.shape[1])

    def _loss(self, generator: torch.Generator) -> Tensor:
        """Squared error of the return of noisy plans, in standard deviations."""
        chosen, _, noisy, index = self._noisy_plans(generator)
        target = self._targets[chosen].to(self.device)
        error: Tensor = self._run(noisy, index) - target
        return error.square().mean()


def make_value_network(config: DiffuserConfig, width: int) -> TemporalValue:
    """Return the network with first weights from the seed, without touching the global stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, "first weights of a value function"))
        return TemporalValue(
            width, config.horizon, channels=config.channels, multipliers=config.multipliers
        )


def save_value(
    folder: Path,
    trainer: ValueTrainer,
    normaliser: Normaliser,
    spec: Spec,
    metrics: dict[str, object],
) -> None:
    """Write the averaged network with what is needed to guide.

    Raises:
        NonFiniteError: If a weight is not finite in half precision.
        StorageError: If it cannot be written.
    """
    stored = {
        "value": to_mapping(trainer.value),
        "plans": to_mapping(trainer.config),
        "returns": {"centre": trainer.centre, "scale": trainer.scale},
        "normaliser": write_normaliser(normaliser),
    }
    weights = {name: tensor.half() for name, tensor in trainer.average.state_dict().items()}
    save_checkpoint(Checkpoint(spec, stored, weights, metrics), folder, replace=True)


def load_value(folder: Path, *, plans: Normaliser, device: str = "cpu") -> Scaled:
    """Read a value function for plans in these coordinates.

    Raises:
        FileFormatError: If a file is missing, damaged, holds another kind of model or a value of
            plans that are scaled in another way.
    """
    checkpoint = load_checkpoint(folder)
    advice = "train it again, on the data of the planner: safectl train value"
    try:
        config = overlay(DiffuserConfig(), checkpoint.config["plans"], source=str(folder))
        returns = checkpoint.config["returns"]
        centre, scale = float(returns["centre"]), float(returns["scale"])
    except (KeyError, TypeError, ValueError) as error:
        problem = f"holds no value function ({error!r})"
        raise FileFormatError(folder, problem, advice) from error
    own = read_normaliser(checkpoint, folder, device)
    same = own.centre.equal(plans.centre) and own.scale.equal(plans.scale)
    if not same:
        raise FileFormatError(folder, "is of plans that are scaled in another way", advice)
    network = make_value_network(config, len(own.centre))
    try:
        network.load_state_dict({k: v.float() for k, v in checkpoint.weights.items()})
    except RuntimeError as error:
        raise FileFormatError(folder, f"has other weights ({error})", advice) from error
    return Scaled(network.to(device).eval().requires_grad_(False), centre, scale)

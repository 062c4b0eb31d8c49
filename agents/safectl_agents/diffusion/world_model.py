"""A diffusion model of the world: states to come, given the first state and the actions.

One stream denoises with the condition beside the noisy states. Two streams understand first: a
deterministic predictor maps the condition to the states, and the denoiser sees its prediction
(the idea of "Foresight Diffusion", 2025, on vectors instead of images; the predictor learns from
its own loss alone). Both have the same number of weights, to one per cent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from safectl.errors import RangeError
from safectl.models.temporal_unet import TimeEmbedding
from safectl.planners import Imposed, cosine_schedule, sample, sampling_steps
from safectl.seed import derive, torch_generator
from safectl_agents.diffusion.plan_data import PlanData

_TIME = 16  # entries of the embedding of the diffusion step


@dataclass(frozen=True, slots=True)
class WorldModelConfig:
    """Network, diffusion process and training of one model.

    Raises:
        RangeError: If a number is out of range.
    """

    streams: int = 2
    """1: the denoiser alone; 2: with the deterministic predictor."""
    horizon: int = 16
    """States that are predicted."""
    width: int = 160
    """Of the hidden layers of each stream with two; one stream gets as many weights."""
    diffusion_steps: int = 32
    """T, the indices of the noise schedule."""
    batch: int = 256
    """Windows per update."""
    learning_rate: float = 1e-3
    """Of Adam at first; it falls to zero along a cosine."""
    updates: int = 6_000
    """Optimiser steps."""
    held_out: float = 0.1
    """Share of the rows, the last ones, that are only measured on."""
    seed: int = 0
    """Of first weights, rows and noise."""

    def __post_init__(self) -> None:
        for name in ("horizon", "width", "diffusion_steps", "batch", "updates"):
            if getattr(self, name) < 1:
                raise RangeError(name, value=getattr(self, name), expected="at least 1")
        if self.streams not in (1, 2):
            raise RangeError("streams", value=self.streams, expected="1 or 2")
        if not (self.learning_rate > 0.0 and 0.0 < self.held_out < 1.0):
            value = (self.learning_rate, self.held_out)
            raise RangeError("learning_rate, held_out", value=value, expected="> 0, in (0, 1)")


class WorldModel(nn.Module):
    """Predicts the clean states from noisy ones, their diffusion step and the condition.

    Args:
        horizon: States that are predicted.
        nx: Entries of a state.
        nu: Entries of an action.
        width: Of the hidden layers.
        has_predictor: Whether there are two streams.
    """

    def __init__(self, horizon: int, nx: int, nu: int, width: int, *, has_predictor: bool) -> None:
        super().__init__()
        known, states = nx + horizon * nu, horizon * nx
        self.nx = nx
        self.time = TimeEmbedding(_TIME)
        self.predictor = _layers(known, width, states) if has_predictor else None
        seen = states + _TIME + known + (states if has_predictor else 0)
        self.denoiser = _layers(seen, width, states)

    def predict(self, condition: Float[Tensor, "batch known"]) -> Float[Tensor, "batch states"]:
        """Return the states of the predictor, flat; nothing, with width 0, for one stream."""
        if self.predictor is None:
            return condition[:, :0]
        found: Tensor = self.predictor(condition)
        return found

    def forward(
        self,
        noisy: Float[Tensor, "batch H nx"],
        step: Int[Tensor, " batch"],
        condition: Float[Tensor, "batch known"],
        prediction: Float[Tensor, "batch states"],
    ) -> Float[Tensor, "batch H nx"]:
        """Return the clean states."""
        seen = torch.cat([noisy.flatten(1), self.time(step), condition, prediction], dim=1)
        found: Tensor = self.denoiser(seen)
        return found.reshape(noisy.shape)


class Windows(NamedTuple):
    """Normalised conditions (count, nx + H nu) and the states that follow (count, H, nx)."""

    condition: Float[Tensor, "count known"]
    states: Float[Tensor, "count H nx"]


class Quality(NamedTuple):
    """How samples of held-out windows compare, on positions.

    Attributes:
        error: Root mean square distance of samples to what happened [m].
        predictor_error: The same of the deterministic stream, NaN without one [m].
        spread: Root mean square distance of samples to their mean, given one condition [m].
        weights: Number of parameters.
    """

    error: float
    predictor_error: float
    spread: float
    weights: int


def make_world_model(config: WorldModelConfig, nx: int, nu: int) -> WorldModel:
    """Return a model with first weights from the seed; one stream is as large as two."""

    def build(width: int, streams: int) -> WorldModel:
        return WorldModel(config.horizon, nx, nu, width, has_predictor=streams == 2)

    width = config.width
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        if config.streams == 1:
            wanted = count_weights(build(width, 2))
            widths = range(width, 3 * width + 1)
            width = min(widths, key=lambda w: abs(count_weights(build(w, 1)) - wanted))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, "first weights of a world model"))
        return build(width, config.streams)


def count_weights(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(weight.numel() for weight in network.parameters())


def split(config: WorldModelConfig, data: PlanData) -> tuple[Tensor, Tensor]:
    """Return the first rows of windows to learn from and to measure on; no row is in both.

    Raises:
        RangeError: If either is empty.
    """
    starts, border = data.rows.starts, round(len(data.rows.transitions) * (1.0 - config.held_out))
    learnt, held = starts[starts + config.horizon < border], starts[starts >= border]
    if not min(len(learnt), len(held)):
        expected = f"episodes of more than {config.horizon} steps on both sides of row {border}"
        raise RangeError("windows in the data", value=0, expected=expected)
    return learnt, held


def cut(data: PlanData, starts: Int[Tensor, " count"], horizon: int) -> Windows:
    """Return the windows that begin at these rows; each holds `horizon` + 1 rows."""
    nu = data.spec.nu
    rows = data.rows.transitions[starts.unsqueeze(1) + torch.arange(horizon + 1)]
    condition = torch.cat([rows[:, 0, nu:], rows[:, :-1, :nu].flatten(1)], dim=1)
    return Windows(condition, rows[:, 1:, nu:])


def train_world_model(
    config: WorldModelConfig, data: PlanData, *, after_update: Callable[[int, float], None]
) -> WorldModel:
    """Train; the predictor, where there is one, gets no gradient from the denoiser.

    Args:
        config: Settings.
        data: With windows of at least `horizon` + 1 rows.
        after_update: Called with the number of updates done and the loss of the denoiser.

    Raises:
        RangeError: If there is no window to learn from.
    """
    starts, _ = split(config, data)
    network = make_world_model(config, data.spec.nx, data.spec.nu)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    pace = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.updates)
    kept = cosine_schedule(config.diffusion_steps).to(torch.float32)
    for update in range(config.updates):
        generator = torch_generator(config.seed, f"update {update} of a world model")
        rows = torch.randint(len(starts), (config.batch,), generator=generator)
        condition, states = cut(data, starts[rows], config.horizon)
        step = torch.randint(config.diffusion_steps, (config.batch,), generator=generator)
        share = kept[step].reshape(-1, 1, 1)
        noise = torch.randn(states.shape, generator=generator)
        noisy = share.sqrt() * states + (1.0 - share).sqrt() * noise
        prediction = network.predict(condition)
        loss = (network(noisy, step, condition, prediction.detach()) - states).square().mean()
        total = loss
        if network.predictor is not None:
            total = loss + (prediction - states.flatten(1)).square().mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        pace.step()
        after_update(update + 1, float(loss.detach()))
    return network.eval().requires_grad_(False)


def draw_states(
    network: WorldModel,
    config: WorldModelConfig,
    condition: Float[Tensor, "batch known"],
    generator: torch.Generator,
) -> Float[Tensor, "batch H nx"]:
    """Sample the states after conditions with all steps of DDPM, normalised."""
    prediction = network.predict(condition)
    blank = condition.new_zeros(len(condition), config.horizon, network.nx)
    return sample(
        lambda noisy, step: network(noisy, step, condition, prediction),
        sampling_steps(cosine_schedule(config.diffusion_steps)),
        Imposed(blank, torch.zeros(blank.shape[1:], dtype=torch.bool)),
        lambda: torch.randn(blank.shape, generator=generator),
    ).plan


def measure_world_model(
    network: WorldModel,
    config: WorldModelConfig,
    data: PlanData,
    *,
    windows: int = 512,
    samples: int = 8,
) -> Quality:
    """Measure on held-out windows, the same ones for every model of a seed.

    Raises:
        RangeError: If there is no window to measure on.
    """
    _, held = split(config, data)
    generator = torch_generator(config.seed, "windows that are measured on")
    rows = torch.randint(len(held), (windows,), generator=generator)
    condition, states = cut(data, held[rows], config.horizon)
    drawn = draw_states(network, config, condition.repeat_interleave(samples, 0), generator)
    truth = data.positions(states).unsqueeze(1)
    found = data.positions(drawn).reshape(windows, samples, *truth.shape[2:])
    foreseen = torch.tensor(torch.nan)
    if network.predictor is not None:
        predicted = network.predict(condition).reshape(states.shape)
        foreseen = _root_mean_square(data.positions(predicted).unsqueeze(1) - truth)
    return Quality(
        float(_root_mean_square(found - truth)),
        float(foreseen),
        float(_root_mean_square(found - found.mean(1, keepdim=True))),
        count_weights(network),
    )


def _root_mean_square(way: Tensor) -> Tensor:
    return way.square().sum(-1).mean().sqrt()


def _layers(before: int, width: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(before, width),
        nn.Mish(),
        nn.Linear(width, width),
        nn.Mish(),
        nn.Linear(width, width),
        nn.Mish(),
        nn.Linear(width, after),
    )

"""What the baselines share: networks, steps of Adam, and rows of a data set."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from safectl.errors import FileFormatError
from safectl.models.networks import HEADS
from safectl.models.update import CUT, SMOOTHING
from safectl.seed import derive, torch_generator
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.episodes import Transitions
from safectl_agents.fb.settings import FBConfig

RATE = 1e-4
"""Step size of Adam of every network that names no other."""


class Rows(NamedTuple):
    """Transitions of a batch or of all data."""

    observation: Float[Tensor, "rows nx"]
    action: Float[Tensor, "rows nu"]
    next_observation: Float[Tensor, "rows nx"]
    discount: Float[Tensor, " rows"]

    def at(self, chosen: Int[Tensor, " batch"]) -> "Rows":
        """Return the chosen rows."""
        return Rows(*(part[chosen] for part in self))


def rows_of(transitions: Transitions, device: str) -> Rows:
    """Return transitions as tensors."""
    return Rows(*(torch.from_numpy(part).to(device) for part in transitions[:4]))


def batch_of(
    config: FBConfig, step: int, rows: int
) -> tuple[Int[Tensor, " batch"], torch.Generator]:
    """Return the rows of an update and a source of noise; both follow from seed and number."""
    generator = torch_generator(config.seed, f"update {step}", config.device)
    chosen = torch.randint(rows, (config.batch,), generator=generator, device=generator.device)
    return chosen, generator


def rewards_of(domain: Domain, transitions: Transitions) -> NDArray[np.float32]:
    """Return the reward of every task on entering every state, shape (rows, tasks).

    Raises:
        FileFormatError: If the data hold no states.
        ShapeError: If they are those of another domain.
    """
    if transitions.physics is None:
        advice = "collect data with: safectl collect, which stores them"
        raise FileFormatError("the data", "hold no states of the simulator to label", advice)
    return domain.label(transitions.physics, transitions.action)


class Perceptron(nn.Sequential):
    """Two hidden layers; `normalised` puts LayerNorm and tanh after the first."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, normalised: bool = False) -> None:
        first = [nn.LayerNorm(hidden), nn.Tanh()] if normalised else [nn.ReLU()]
        super().__init__(
            *(nn.Linear(inputs, hidden), *first),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, outputs),
        )


class Twins(nn.Module):
    """Two scalar perceptrons over one input."""

    def __init__(self, inputs: int, hidden: int, *, normalised: bool = False) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            Perceptron(inputs, hidden, 1, normalised=normalised) for _ in range(HEADS)
        )

    def forward(self, *inputs: Tensor) -> Float[Tensor, "heads *batch"]:
        """Return the values of both heads."""
        joined = torch.cat(inputs, -1)
        return torch.stack([head(joined).squeeze(-1) for head in self.heads])


@contextmanager
def first_weights(seed: int, purpose: str) -> Iterator[None]:
    """Draw the weights of what is built in the block from a seed of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, purpose))
        yield


def adam(*modules: nn.Module, rate: float = RATE) -> torch.optim.Adam:
    """Return Adam over the weights of some networks."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.Adam(parameters, lr=rate, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    """Take one step down; only the weights of the optimiser get a gradient."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, share: float) -> None:
    """Move target weights by a share towards the new ones."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), share)


def noise_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return smoothing noise for actions, cut."""
    drawn = torch.randn(values.shape, generator=generator, device=generator.device)
    return (SMOOTHING * drawn).clamp(-CUT, CUT)


def mean_of(metrics: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of equal scalars by name."""
    found = list(metrics)
    return {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}

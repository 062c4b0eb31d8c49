"""The three networks of a forward-backward model: F(s, a, z), B(s) and the policy.

Sizes follow the released implementation of Jeen, Bewley and Cullen, "Zero-Shot Reinforcement
Learning from Low Quality Data", NeurIPS 2024 (arXiv 2309.15178); see `Sizes`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from safectl.errors import RangeError, ShapeError

HEADS = 2
"""Heads of F."""

_EDGE = 1e-6
"""Distance of a noisy action from the ends of [-1, 1], so that a squashed one can be inverted."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Widths of the networks; the defaults are those of the released implementation.

    Raises:
        RangeError: If a width is below 1, or a scale no positive number.
        ShapeError: If there are scales, but not one per observation.
    """

    nx: int
    """Observations."""
    nu: int
    """Actions, each in [-1, 1]."""
    nz: int = 50
    """Entries of a task; 100 for the point-mass maze."""
    hidden: int = 1024
    """Units per hidden layer of F and of the policy."""
    embedding: int = 512
    """Outputs of each preprocessor."""
    backward_hidden: int = 256
    """Units per hidden layer of B."""
    observation_scale: tuple[float, ...] = ()
    """What each observation is divided by before every network, such as its deviation in the data;
    empty for 1, as published."""

    def __post_init__(self) -> None:
        for name in ("nx", "nu", "nz", "hidden", "embedding", "backward_hidden"):
            if getattr(self, name) < 1:
                raise RangeError(name, value=getattr(self, name), expected=">= 1")
        scale = self.observation_scale
        if scale and len(scale) != self.nx:
            raise ShapeError("observation_scale", expected=(self.nx,), got=(len(scale),))
        if not all(0.0 < number < math.inf for number in scale):
            raise RangeError("observation_scale", value=scale, expected="positive numbers")

    @property
    def gain(self) -> Float[Tensor, " nx"]:
        """What observations are multiplied by."""
        return torch.tensor([1.0 / number for number in self.observation_scale or (1.0,) * self.nx])


class _Scaled(nn.Module):
    """A network that sees observations in their scale; the gain is no weight and is not saved."""

    gain: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.register_buffer("gain", sizes.gain, persistent=False)


class Forward(_Scaled):
    """F(s, a, z) of both heads.

    The first layer of a head is linear in the embeddings of (s, a) and of (s, z). So its share of
    (s, z) is computed once for any number of candidate actions: `task_part`, then `at`.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        hidden, embedding = sizes.hidden, sizes.embedding
        self.action_embedding = _embedding(sizes.nx + sizes.nu, sizes)
        self.task_embedding = _embedding(sizes.nx + sizes.nz, sizes)
        self.joints = nn.ModuleList(nn.Linear(2 * embedding, hidden) for _ in range(HEADS))
        self.tails = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, sizes.nz)
            )
            for _ in range(HEADS)
        )

    def forward(
        self,
        observation: Float[Tensor, "batch nx"],
        action: Float[Tensor, "batch nu"],
        task: Float[Tensor, "batch nz"],
    ) -> Float[Tensor, "heads batch nz"]:
        """Return F of both heads."""
        return self.at(observation, action, self.task_part(observation, task))

    def task_part(
        self, observation: Float[Tensor, "batch nx"], task: Float[Tensor, "batch nz"]
    ) -> Float[Tensor, "heads batch hidden"]:
        """Return what (s, z) adds to the first layer of each head."""
        embedded = self.task_embedding(torch.cat([observation * self.gain, task], -1))
        width = embedded.shape[-1]
        return torch.stack(
            [
                functional.linear(embedded, joint.weight[:, width:], joint.bias)
                for joint in self._joints()
            ]
        )

    def at(
        self,
        observation: Float[Tensor, "*candidates batch nx"],
        action: Float[Tensor, "*candidates batch nu"],
        task_part: Float[Tensor, "heads batch hidden"],
    ) -> Float[Tensor, "heads *candidates batch nz"]:
        """Return F at actions, given the part of the tasks; candidates share it."""
        embedded = self.action_embedding(torch.cat([observation * self.gain, action], -1))
        width = embedded.shape[-1]
        return torch.stack(
            [
                tail(functional.linear(embedded, joint.weight[:, :width]) + part)
                for joint, tail, part in zip(self._joints(), self.tails, task_part, strict=True)
            ]
        )

    def _joints(self) -> Iterator[nn.Linear]:
        for joint in self.joints:
            assert isinstance(joint, nn.Linear)
            yield joint


class Backward(_Scaled):
    """B(s), normalised to the sphere of radius sqrt(nz)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        hidden = sizes.backward_hidden
        self.layers = nn.Sequential(
            *(nn.Linear(sizes.nx, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, sizes.nz),
        )

    def forward(self, observation: Float[Tensor, "batch nx"]) -> Float[Tensor, "batch nz"]:
        """Return B."""
        return on_sphere(self.layers(observation * self.gain))


class Actor(_Scaled):
    """The mean action of the policy of a task, in (-1, 1)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.observation_embedding = _embedding(sizes.nx, sizes)
        self.task_embedding = _embedding(sizes.nx + sizes.nz, sizes)
        self.trunk = nn.Sequential(
            *(nn.Linear(2 * sizes.embedding, sizes.hidden), nn.LayerNorm(sizes.hidden), nn.Tanh()),
            *(nn.Linear(sizes.hidden, sizes.hidden), nn.ReLU()),
            *(nn.Linear(sizes.hidden, sizes.nu), nn.Tanh()),
        )

    def forward(
        self, observation: Float[Tensor, "batch nx"], task: Float[Tensor, "batch nz"]
    ) -> Float[Tensor, "batch nu"]:
        """Return the mean action per row."""
        seen = observation * self.gain
        embedded = [
            self.observation_embedding(seen),
            self.task_embedding(torch.cat([seen, task], -1)),
        ]
        action: Tensor = self.trunk(torch.cat(embedded, -1))
        return action


def on_sphere(vectors: Float[Tensor, "*batch nz"]) -> Float[Tensor, "*batch nz"]:
    """Scale to radius sqrt(nz); a vector of zeros stays one."""
    radius: float = vectors.shape[-1] ** 0.5
    return radius * functional.normalize(vectors, dim=-1)


def noisy(
    mean: Float[Tensor, "*batch nu"], noise: Float[Tensor, "*batch nu"]
) -> Float[Tensor, "*batch nu"]:
    """Return mean + noise inside (-1, 1), with the gradient of the mean as if nothing were cut."""
    action = mean + noise
    return action + (action.clamp(-1.0 + _EDGE, 1.0 - _EDGE) - action).detach()


def _embedding(inputs: int, sizes: Sizes) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(inputs, sizes.hidden), nn.ReLU()),
        *(nn.Linear(sizes.hidden, sizes.hidden), nn.ReLU()),
        *(nn.Linear(sizes.hidden, sizes.embedding), nn.ReLU()),
    )

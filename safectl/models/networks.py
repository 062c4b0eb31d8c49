"""The three networks of a forward-backward model: F(s, a, z), B(s) and the policy.

Sizes follow the released implementation of Jeen, Bewley and Cullen, "Zero-Shot Reinforcement
Learning from Low Quality Data", NeurIPS 2024 (arXiv 2309.15178); see `Sizes`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from safectl.errors import RangeError

HEADS = 2
"""Heads of F, of which the smaller entry is used."""

_EDGE = 1e-6
"""Distance of a noisy action from the ends of [-1, 1], so that a squashed one can be inverted."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Widths of the networks; the defaults are those of the released implementation.

    Raises:
        RangeError: If a number is below 1.
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

    def __post_init__(self) -> None:
        for part in fields(self):
            if getattr(self, part.name) < 1:
                raise RangeError(part.name, value=getattr(self, part.name), expected=">= 1")


class Forward(nn.Module):
    """F(s, a, z) of both heads.

    The first layer of a head is linear in the embeddings of (s, a) and of (s, z). So its share of
    (s, z) is computed once for any number of candidate actions: `task_part`, then `at`.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
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
        embedded = self.task_embedding(torch.cat([observation, task], -1))
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
        embedded = self.action_embedding(torch.cat([observation, action], -1))
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


class Backward(nn.Module):
    """B(s), normalised to the sphere of radius sqrt(nz)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        hidden = sizes.backward_hidden
        self.layers = nn.Sequential(
            *(nn.Linear(sizes.nx, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, sizes.nz),
        )

    def forward(self, observation: Float[Tensor, "batch nx"]) -> Float[Tensor, "batch nz"]:
        """Return B."""
        return on_sphere(self.layers(observation))


class Actor(nn.Module):
    """The mean action of the policy of a task, in (-1, 1)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
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
        embedded = [
            self.observation_embedding(observation),
            self.task_embedding(torch.cat([observation, task], -1)),
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

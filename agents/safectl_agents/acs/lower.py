"""The lower layer under a task policy: what it corrects, learns and adds to the actor's loss."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from safectl_agents.acs.replay import CostSamples

Actor = Callable[[Tensor], Tensor]
"""From observations (batch, nx) to actions in [-1, 1], shape (batch, nu), without noise."""


class Corrected(NamedTuple):
    """What is executed: action (batch, nu) in [-1, 1], iterations and residual, shape (batch,)."""

    action: Float[Tensor, "batch nu"]
    iterations: Shaped[Tensor, " batch"]
    residual: Float[Tensor, " batch"]


class Proposed(NamedTuple):
    """What a step starts from: actions scaled to [-1, 1].

    Attributes:
        observation: Shape (batch, nx).
        action: The proposal with its noise, shape (batch, nu).
        cost_before: Cost of the step before in the same episode, shape (batch, 1).
    """

    observation: Float[Tensor, "batch nx"]
    action: Float[Tensor, "batch nu"]
    cost_before: Float[Tensor, "batch 1"]


class Actors(NamedTuple):
    """The task policy as it is, and as the targets of the critics see it."""

    now: Actor
    following: Actor


@runtime_checkable
class Lower(Protocol):
    """One method's lower layer; it never touches torch's global generator after construction."""

    def correct(self, proposed: Proposed, actors: Actors) -> Corrected:
        """Return what is executed in place of the proposals."""
        ...

    def update(
        self, batch: CostSamples, next_action: Float[Tensor, "batch nu"], actors: Actors
    ) -> dict[str, float]:
        """Learn from a batch; `next_action` is the policy's at its next observations."""
        ...

    def penalty(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> Tensor | None:
        """Return what the actor's loss gains, a scalar with a graph to `action`, or None."""
        ...

    def track(self) -> None:
        """Move every slow copy; called with the policy's own."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the attributes, dotted, whose `state_dict` a checkpoint keeps."""
        ...


class Sizes(NamedTuple):
    """What a lower layer is built for."""

    nx: int
    nu: int
    device: torch.device


@runtime_checkable
class LowerSettings(Protocol):
    """Settings of a lower layer: a frozen dataclass beside it."""

    def build(self, sizes: Sizes) -> Lower:
        """Make the untrained layer; weights come from torch's global generator."""
        ...


def kept(proposed: Proposed) -> Corrected:
    """Return the proposals unchanged."""
    none = torch.zeros(len(proposed.action))
    return Corrected(proposed.action, none, none)

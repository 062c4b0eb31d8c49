"""For which states the bounds of a table hold, and within how many steps."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.barriers import Discs
from safectl.errors import NonFiniteError, RangeError

_BESIDE = 0.05
"""Share of the length of each range by which a box reaches beyond what was met."""


@dataclass(frozen=True, slots=True, eq=False)
class VisitScope:
    """What the rollouts of a table met: a box of observations, a set and a horizon.

    The box refuses states far from the rollouts. Within it there may be some that no rollout met.

    Attributes:
        low: Smallest observations, shape (nx,), in their units.
        high: Largest observations, shape (nx,).
        unsafe: What counts as a visit.
        steps: Horizon: within how many steps, >= 1.

    Raises:
        RangeError: If low is above high, or there are no steps.
    """

    low: Float[Tensor, " nx"]
    high: Float[Tensor, " nx"]
    unsafe: Discs
    steps: int

    def __post_init__(self) -> None:
        if not bool((self.low <= self.high).all()):
            raise RangeError("low", value=self.low.tolist(), expected="at or below high")
        if self.steps < 1:
            raise RangeError("steps", value=self.steps, expected=">= 1")

    def is_known(self, observation: Float[Tensor, "batch nx"]) -> Bool[Tensor, " batch"]:
        """Return which rows lie within the box; NaN does not."""
        low, high = self.low.to(observation), self.high.to(observation)
        return ((observation >= low) & (observation <= high)).all(-1)

    def is_inside(self, observation: Float[Tensor, "batch nx"]) -> Bool[Tensor, " batch"]:
        """Return which rows lie in the unsafe set."""
        return (self.unsafe.value(observation) < 0.0).any(-1)

    def bound(
        self, observation: Float[Tensor, "batch nx"], bound: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Return the bound of a table; 1 outside the box and in the unsafe set."""
        holds = self.is_known(observation) & ~self.is_inside(observation)
        return torch.where(holds, bound, torch.ones_like(bound))

    def order(
        self, observation: Float[Tensor, "batch nx"], order: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Return what orders candidates; infinite outside the box, where it is unknown."""
        return torch.where(self.is_known(observation), order, torch.inf)


def scope_of(states: Float[Tensor, "*rows nx"], unsafe: Discs, steps: int) -> VisitScope:
    """Return the scope of rollouts: the box of their states, a twentieth longer on every side.

    Raises:
        NonFiniteError: If a state is NaN or infinite.
        RangeError: As `VisitScope`.
    """
    bad = int((~states.isfinite()).sum())
    if bad:
        raise NonFiniteError("states", count=bad, size=states.numel(), advice="look at the world")
    rows = states.flatten(0, -2)
    low, high = rows.amin(0), rows.amax(0)
    beside = _BESIDE * (high - low)
    return VisitScope(low - beside, high + beside, unsafe, steps)

"""Limits on the action and on its rate of change."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards.evidence import (
    Candidate,
    Limits,
    action_limits,
    at_the_door,
    blind,
    decide,
    evidence,
    finite_rows,
)
from safectl.safeguards.fallback import Brake, Fallback, require_rows
from safectl.spec import Spec
from safectl.types import Decision


class Clip:
    """Keeps every action within the limits of the specification.

    The margin is the distance to the nearest limit, over signals in their own units.
    """

    claim = "low <= u <= high for every action signal"

    def __init__(self, spec: Spec, *, fallback: Fallback | None = None) -> None:
        self.spec, self.fallback = spec, fallback or Brake(spec)

    def filter(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Decision:
        """Clip each row; non-finite rows take the fallback."""
        seen = finite_rows(observation)
        finite = seen & finite_rows(action)
        proposal = at_the_door(finite, action)
        limits = action_limits(self.spec, action)
        fallback = blind(_within(self.fallback.action(observation), limits), seen)
        candidate = _within(proposal.clamp(*limits), limits)
        return decide(action, candidate, fallback, certified=finite)


class RateLimit:
    """Keeps |u - previous u| <= rate * period, and the limits, per signal.

    The previous action changes only through `remember` and `reset`; wrap the outermost safeguard in
    `Remembering`, which calls them with what was decided in the end. The fallback, too, is
    approached at the allowed rate.

    Args:
        spec: Signals of the robot; its period is the time between two actions.
        rate: Largest rate of change, one per action, in [unit of the signal / s].
        rows: Number of rows of every batch.
        start: Action before the first step and after a reset; zero by default, within the limits.
        fallback: Taken by rows that are not finite.

    Raises:
        ShapeError: If a length is not nu.
        RangeError: If a rate or `rows` is not positive.
    """

    claim = "|u[k] - u[k-1]| <= rate * period and low <= u[k] <= high for every action signal"

    def __init__(
        self,
        spec: Spec,
        rate: Sequence[float],
        *,
        rows: int,
        start: Sequence[float] | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        for name, entries in (("rate", rate), ("start", start or (0.0,) * spec.nu)):
            if len(entries) != spec.nu:
                raise ShapeError(name, expected=(spec.nu,), got=(len(entries),))
        if not all(entry > 0.0 for entry in rate):
            raise RangeError("rate", value=tuple(rate), expected="positive numbers")
        if rows < 1:
            raise RangeError("rows", value=rows, expected="at least 1")
        self.spec, self.fallback = spec, fallback or Brake(spec)
        self.step = torch.tensor(rate, dtype=torch.float64) * spec.period
        self._start = torch.tensor(start or (0.0,) * spec.nu, dtype=torch.float64)
        self._start = self._start.clamp(*action_limits(spec, self._start))
        self._previous = self._start.repeat(rows, 1)

    def filter(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Decision:
        """Move each row as far towards its proposal as the rate allows.

        Raises:
            ShapeError: If the batch does not have the number of rows given at construction.
        """
        require_rows(action, len(self._previous))
        seen = finite_rows(observation)
        finite = seen & finite_rows(action)
        limits = action_limits(self.spec, action)
        previous, step = self._previous.to(action), self.step.to(action)
        window = Limits(
            torch.maximum(previous - step, limits.low), torch.minimum(previous + step, limits.high)
        )
        candidate = _within(at_the_door(finite, action).clamp(*window), window)
        fallback = _within(self.fallback.action(observation).clamp(*window), window)
        return decide(action, candidate, blind(fallback, seen), certified=finite)

    def remember(self, decision: Decision, /) -> None:
        """Store what was decided, by whichever safeguard had the last word."""
        require_rows(decision.action, len(self._previous))
        self._previous = decision.action.to(self._previous)

    def reset(self, rows: Bool[Tensor, " batch"], /) -> None:
        """Set the marked rows back to the start: a new episode begins there."""
        marked = rows.to(self._previous.device).unsqueeze(-1)
        self._previous = torch.where(marked, self._start, self._previous)


def _within(action: Tensor, limits: Limits) -> Candidate:
    room = torch.minimum(action - limits.low, limits.high - action)
    return evidence(action, room, limits)

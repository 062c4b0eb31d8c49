"""Limits on the action and on its rate of change."""

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards.evidence import (
    Candidate,
    Limits,
    action_limits,
    at_the_door,
    blind,
    check_batch,
    decide,
    evidence,
    finite_rows,
)
from safectl.safeguards.fallback import Brake, Fallback, Numbers, fallback_action, require_rows
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
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Clip each row; non-finite rows take the fallback.

        Raises:
            ShapeError, RangeError: As `check_batch`; only the fallback reads the observation, so
                its width is not checked.
        """
        check_batch(self.spec, observation, action)
        seen = finite_rows(observation)
        finite = seen & finite_rows(action)
        proposal = at_the_door(finite, action)
        limits = action_limits(self.spec, action)
        candidate = fallback = _evaluate(proposal.clamp(*limits), limits)
        if not bool(finite.all()):
            last_resort = fallback_action(self.fallback, observation, limits)
            fallback = blind(_evaluate(last_resort, limits), seen)
        return decide(action, candidate, fallback, limits=limits, usable=finite)


class RateLimit:
    """Keeps |u - previous u| <= rate * period, and the limits, per signal.

    The previous action changes only through `remember` and `reset`; wrap the outermost safeguard in
    `Remembering`, which calls them with what was decided in the end. The fallback, too, is
    approached at the allowed rate. Whoever decides more often than once per period says so with
    `elapse`.

    Args:
        spec: Signals of the robot; its period is the time between two actions.
        rate: Largest rate of change, one per action, in [unit of the signal / s].
        rows: Number of rows of every batch.
        start: Action before the first step and after a reset; zero by default, within the limits.
        fallback: Taken by rows that are not finite.

    Raises:
        ShapeError: If a length is not nu.
        RangeError: If a rate or `rows` is not positive, or the start is not finite.
    """

    claim = "|u[k] - u[k-1]| <= rate * period and low <= u[k] <= high for every action signal"

    def __init__(
        self,
        spec: Spec,
        rate: Numbers,
        *,
        rows: int,
        start: Numbers | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        first = (0.0,) * spec.nu if start is None else start
        for name, entries in (("rate", rate), ("start", first)):
            if len(entries) != spec.nu:
                raise ShapeError(name, expected=(spec.nu,), got=(len(entries),))
        if not all(entry > 0.0 for entry in rate):
            raise RangeError("rate", value=tuple(rate), expected="positive numbers")
        if rows < 1:
            raise RangeError("rows", value=rows, expected="at least 1")
        self.spec, self.fallback = spec, fallback or Brake(spec)
        self.step = torch.tensor(rate, dtype=torch.float64) * spec.period
        self.start = torch.tensor(first, dtype=torch.float64)
        if not bool(self.start.isfinite().all()):
            raise RangeError("start", value=tuple(first), expected="finite numbers")
        self.start = self.start.clamp(*action_limits(spec, self.start))
        self._previous = self.start.repeat(rows, 1)
        self._share = 1.0

    def filter(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Move each row as far towards its proposal as the rate allows.

        Raises:
            ShapeError, RangeError: As `check_batch`, or if the batch does not have the number of
                rows given at construction.
        """
        check_batch(self.spec, observation, action)
        require_rows(action, len(self._previous))
        seen = finite_rows(observation)
        finite = seen & finite_rows(action)
        limits = action_limits(self.spec, action)
        previous, step = self._previous.to(action), self._share * self.step.to(action)
        window = Limits(
            torch.maximum(previous - step, limits.low), torch.minimum(previous + step, limits.high)
        )
        candidate = fallback = _evaluate(at_the_door(finite, action).clamp(*window), window)
        if not bool(finite.all()):
            last_resort = fallback_action(self.fallback, observation, window)
            fallback = blind(_evaluate(last_resort, window), seen)
        return decide(action, candidate, fallback, limits=window, usable=finite)

    def elapse(self, seconds: float) -> None:
        """Allow the rate for so long since the previous action [s], but for one period at most."""
        self._share = min(max(0.0, seconds / self.spec.period), 1.0)

    def remember(self, decision: Decision, /) -> None:
        """Store what was decided, by whichever safeguard had the last word, within the limits.

        A row that is not finite keeps its previous action.

        Raises:
            ShapeError: If the actions do not have the shape given at construction.
        """
        if decision.action.shape != self._previous.shape:
            expected = tuple(self._previous.shape)
            raise ShapeError("action", expected=expected, got=tuple(decision.action.shape))
        decided = decision.action.to(self._previous)
        known = finite_rows(decided).unsqueeze(-1)
        limits = action_limits(self.spec, decided)
        self._previous = torch.where(known, decided.clamp(*limits), self._previous)

    def reset(self, rows: Bool[Tensor, " batch"], /) -> None:
        """Set the marked rows back to the start: a new episode begins there."""
        require_rows(rows, len(self._previous))
        marked = rows.to(self._previous.device).unsqueeze(-1)
        self._previous = torch.where(marked, self.start, self._previous)


def _evaluate(action: Tensor, limits: Limits) -> Candidate:
    room = torch.minimum(action - limits.low, limits.high - action)
    return evidence(action, room, limits)

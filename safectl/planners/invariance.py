"""Finite-time diffusion invariance: three ways to make the last plan of a diffusion safe.

Source: W. Xiao, T.-H. Wang, C. Gan, R. Hasani, M. Lechner, D. Rus, "SafeDiffuser: Safe planning
with diffusion probabilistic models", ICLR 2025. A denoising step moves a state x of a plan by u; it
proposes q. Each class states the program of one step for barriers b >= 0, with class-K function
alpha(b) = gain b and the barrier lowered by a margin:

    robust-safe (eq. 8)         min |u - q|^2            db.u + alpha(b - margin) >= 0
    relaxed-safe (eq. 9, 10)    min |u - q|^2 + |r|^2    db.u + alpha(b - margin) - w(t) r >= 0
    time-varying-safe (11, 12)  min |u - q|^2            db.u - dgamma + alpha(b - margin - gamma)

Promised: if b is convex ("stay outside a convex set"), 0 < gain <= 1 and a step's constraint is
hard, then b(x + u) >= (1 - gain) b(x) + gain margin; with gain 1 every state is safe after that
step. Not promised: anything from one step where b is concave ("stay inside"), see `refine` of the
planner; that a plan is drivable; that start and goal, which are imposed after the filter, are safe.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError
from safectl.planners.schedule import Step

MARGIN = 0.01
"""Of the released maze code, in the unit of the barrier."""

_RELEASED_WEIGHT_FROM = 10
_CENTRE = 5.0


class Condition(NamedTuple):
    """g.u + `offset` - `weight` r >= 0; offset of shape (m, N)."""

    offset: Float[Tensor, "m N"]
    weight: float


@runtime_checkable
class Invariance(Protocol):
    """One of the three variants."""

    @property
    def margin(self) -> float:
        """What is subtracted from the barrier, in its unit."""
        ...

    def condition(
        self, value: Float[Tensor, "m N"], depth: Float[Tensor, "m N"], step: Step, /
    ) -> Condition:
        """Return the constraint of one denoising step.

        Args:
            value: b at the states before the step.
            depth: How far below zero each barrier is in the plan of pure noise that this state
                comes from, at least 1; used by TVS.
            step: The step.
        """
        ...


@dataclass(frozen=True, slots=True)
class RobustSafe:
    """RoS: the hard constraint at every step.

    Raises:
        RangeError: If the gain is not in (0, 1]: above one a step can overshoot into the obstacle.
    """

    gain: float = 1.0
    """alpha(b) = gain b, in (0, 1]."""
    margin: float = MARGIN
    """Subtracted from the barrier, in its unit, >= 0."""

    def __post_init__(self) -> None:
        _check(self.gain, self.margin)

    def condition(
        self, value: Float[Tensor, "m N"], depth: Float[Tensor, "m N"], step: Step, /
    ) -> Condition:
        """Return c = k (b - margin)."""
        del depth, step
        return Condition(self.gain * (value - self.margin), 0.0)


@dataclass(frozen=True, slots=True)
class RelaxedSafe:
    """ReS: the constraint has a penalised slack whose weight is zero at the end.

    Corrected, w(t) = weight (1 - exp(-t / decay)). As released, w is a step: `weight` for t >= 10
    and 0 below.

    Raises:
        RangeError: If a number is out of range.
    """

    gain: float = 1.0
    """alpha(b) = gain b, in (0, 1]."""
    margin: float = MARGIN
    """Subtracted from the barrier, in its unit, >= 0."""
    weight: float = 100.0
    """w of a noisy plan, >= 0."""
    decay: float = 3.0
    """Diffusion steps over which w falls to zero, > 0."""
    as_released: bool = False
    """Use the step function of the released code."""

    def __post_init__(self) -> None:
        _check(self.gain, self.margin)
        if not (self.weight >= 0.0 and self.decay > 0.0):
            value = (self.weight, self.decay)
            raise RangeError("weight, decay", value=value, expected="weight >= 0, decay > 0")

    def condition(
        self, value: Float[Tensor, "m N"], depth: Float[Tensor, "m N"], step: Step, /
    ) -> Condition:
        """Return c = k (b - margin) and w(t)."""
        del depth
        return Condition(self.gain * (value - self.margin), self.slack_weight(step.at))

    def slack_weight(self, index: int) -> float:
        """Return w(t)."""
        if self.as_released:
            return self.weight if index >= _RELEASED_WEIGHT_FROM else 0.0
        return self.weight * (1.0 - math.exp(-max(index, 0) / self.decay))


@dataclass(frozen=True, slots=True)
class TimeVaryingSafe:
    """TVS: the barrier itself is lowered at first, so far that the noisy plan meets it.

    Corrected, gamma(t) = depth (s(5 - t) - s(6)) / s(6) with the logistic function s, exactly zero
    for the finished plan, and dgamma is its finite difference over the step. As released,
    gamma(t) = s(5 - t) - 1 and dgamma has the wrong sign: the plan ends at b = -0.0033 instead of
    the margin. `corrects_sign` alone leaves gamma as released.

    Raises:
        RangeError: If the gain is not in (0, 1] or the margin below zero.
    """

    gain: float = 1.0
    """alpha(b) = gain b, in (0, 1]."""
    margin: float = MARGIN
    """Subtracted from the barrier, in its unit, >= 0."""
    as_released: bool = False
    """Use gamma of the released code."""
    corrects_sign: bool = False
    """With `as_released`: use dgamma with the right sign."""

    def __post_init__(self) -> None:
        _check(self.gain, self.margin)

    def condition(
        self, value: Float[Tensor, "m N"], depth: Float[Tensor, "m N"], step: Step, /
    ) -> Condition:
        """Return c = k (b - margin - gamma(t)) - dgamma."""
        if self.as_released:
            share = _logistic(_CENTRE - step.at)
            slope = -share * (1.0 - share) * (-1.0 if self.corrects_sign else 1.0)
            return Condition(self.gain * (value - self.margin - (share - 1.0)) - slope, 0.0)
        now, then = (depth * _gamma(index) for index in (step.at, step.after))
        return Condition(self.gain * (value - self.margin - now) - (then - now), 0.0)


def _gamma(index: int) -> float:
    last = _logistic(_CENTRE + 1.0)
    return (_logistic(_CENTRE - index) - last) / last


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def _check(gain: float, margin: float) -> None:
    if not 0.0 < gain <= 1.0:
        raise RangeError("gain", value=gain, expected="a number in (0, 1]; above it, a step enters")
    if not 0.0 <= margin < math.inf:
        raise RangeError("margin", value=margin, expected="a number >= 0")

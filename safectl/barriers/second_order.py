"""Barriers for positions that are moved through accelerations."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.barriers.barrier import lie_derivatives
from safectl.barriers.positions import select
from safectl.errors import RangeError, ShapeError
from safectl.types import Barrier, Dynamics


class RelativeDegreeTwo:
    """h2(x) = Lf h(x) + rate h(x): the second barrier of a constraint that the action meets late.

    A high-order control barrier function with linear class-K functions (Xiao and Belta, "High-order
    control barrier functions", 2022): in continuous time, h >= 0 at the start and h2 >= 0 for ever
    imply h >= 0 for ever. Not promised: that an action with h2 >= 0 exists within limits, nor that
    h stays exactly non-negative between samples.

    Args:
        barrier: h, of relative degree two (Lg h = 0).
        dynamics: Control-affine model.
        rate: Class-K gain [1/s].

    Raises:
        RangeError: If the rate is not positive.
    """

    def __init__(self, barrier: Barrier, dynamics: Dynamics, *, rate: float) -> None:
        if not rate > 0.0:
            raise RangeError("rate", value=rate, expected="a positive number [1/s]")
        self.barrier, self.dynamics, self.rate = barrier, dynamics, rate

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return Lf h + rate h, in [unit of h / s]."""
        keep = torch.is_grad_enabled() and state.requires_grad
        lie = lie_derivatives(self.barrier, self.dynamics, state, differentiable=keep)
        return lie.drift + self.rate * self.barrier.value(state)


class StoppingDistance:
    """Room left after braking, per axis with p'' = u and |u| <= braking, on both sides.

    h = high - p - d(v+) and h = p - low - d(v-), with v+ = max(v, 0), v- = max(-v, 0) and the
    braking distance d. Braking every period with u = clip(-v / period, -braking, braking) keeps
    every h from falling, exactly: h[k+1] >= h[k] under a zero-order hold, at any speed. So the set
    {h >= 0} can be kept for ever, and between samples the position stays within [low, high].

    d(v) is the distance that this law covers: v^2 / (2 braking) at multiples of w = braking *
    period, and the chord between them, d(v) = w ((2n + 1) v - n (n + 1) w) / (2 braking) with
    n = floor(v / w). It exceeds v^2 / (2 braking) by at most braking period^2 / 8. The parabola
    alone is kept only by braking through v = 0 to the other side.

    Args:
        low: Lower limits [m], one per axis.
        high: Upper limits [m], one per axis.
        braking: Acceleration that is always available on every axis [m/s^2].
        period: Time between two actions [s].
        positions: Indices of the positions in the state.
        velocities: Indices of the velocities in the state.

    Raises:
        ShapeError: If the lengths disagree.
        RangeError: If `low < high` fails, or braking or period is not positive.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        *,
        braking: float,
        period: float,
        positions: Sequence[int],
        velocities: Sequence[int],
    ) -> None:
        for name, entries in (("low", low), ("high", high), ("velocities", velocities)):
            if len(entries) != len(positions):
                raise ShapeError(name, expected=(len(positions),), got=(len(entries),))
        if not all(one < other for one, other in zip(low, high, strict=True)):
            raise RangeError("limits", value=(tuple(low), tuple(high)), expected="low < high")
        for name, number in (("braking", braking), ("period", period)):
            if not number > 0.0:
                raise RangeError(name, value=number, expected="a positive number")
        self.low = torch.tensor(low, dtype=torch.float64)
        self.high = torch.tensor(high, dtype=torch.float64)
        self.braking, self.period = braking, period
        self.positions, self.velocities = tuple(positions), tuple(velocities)

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return the room below the upper limits, then above the lower limits, in [m]."""
        position, velocity = select(state, self.positions), select(state, self.velocities)
        speed = velocity.abs()
        n = torch.floor(speed.detach() / self._step)
        distance = self.period * ((n + 0.5) * speed - 0.5 * self._step * n * (n + 1.0))
        above = self.high.to(state) - position - torch.where(velocity > 0.0, distance, 0.0)
        below = position - self.low.to(state) - torch.where(velocity < 0.0, distance, 0.0)
        return torch.cat([above, below], dim=1)

    def gradient(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m nx"]:
        """Return -1 and 1 for the positions, and minus the slope of d for the velocities."""
        velocity = select(state, self.velocities)
        slope = self.period * (torch.floor(velocity.abs() / self._step) + 0.5)
        above = torch.where(velocity > 0.0, -slope, 0.0)
        below = torch.where(velocity < 0.0, slope, 0.0)
        place = torch.eye(state.shape[1], dtype=state.dtype, device=state.device)
        position, speed = place[list(self.positions)], place[list(self.velocities)]
        return torch.cat(
            [above.unsqueeze(-1) * speed - position, below.unsqueeze(-1) * speed + position], dim=1
        )

    @property
    def _step(self) -> float:
        return self.braking * self.period

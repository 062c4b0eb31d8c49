"""Coming to rest from a measured motion: at a bounded deceleration, or as hard as the limits allow.

With the motion v0 measured when the stop begins and the deceleration a, the ramp is

    v(t) = v0 max(0, 1 - t / T),   T = max over the entries of |v0| / a,

so that all entries reach rest together: coupled axes keep their direction.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards.clip import Clip
from safectl.safeguards.evidence import action_limits
from safectl.safeguards.fallback import Fallback, Numbers
from safectl.spec import Spec
from safectl.types import Decision

Command = Literal["velocity", "acceleration", "position"]
"""What an action of the robot is."""


class StopProfile:
    """A fallback that follows the ramp; time is the last column of what it observes.

    A row is the observation at the begin of the stop, then the time since [s]. For actions that are
    velocities u = v(t + period); for accelerations u = (v(t + period) - v(t)) / period, where an
    unbounded deceleration means u = -v / period within the limits; for positions the ramp is
    integrated from the measured position. Where the row is not finite the action is zero, within
    the limits: right for velocities and accelerations, not for positions, see `needs_observation`.

    Not promised: that the robot follows, or that the way to rest is free. Propose the action to a
    safeguard where that matters.

    Args:
        spec: Signals of the robot.
        velocities: Index of the measured velocity of every action, in the observation.
        deceleration: Largest one per action, in units of the measured velocity per second;
            infinity for rest at once.
        command: What the actions are.
        positions: Index of the measured position of every action; for `command="position"`.
        scale: What 1 means for every action, in SI units; ones by default.

    Raises:
        ShapeError: If a length is not nu.
        RangeError: If a deceleration or scale is not positive, an index is out of range, or
            positions are missing.
    """

    name = "stop"

    def __init__(
        self,
        spec: Spec,
        *,
        velocities: Sequence[int],
        deceleration: Numbers,
        command: Command = "velocity",
        positions: Sequence[int] = (),
        scale: Numbers | None = None,
    ) -> None:
        sizes = (1.0,) * spec.nu if scale is None else scale
        if command == "position" and not positions:
            raise RangeError("positions", value=(), expected="one index per action")
        lengths = {"velocities": velocities, "deceleration": deceleration, "scale": sizes}
        if positions:
            lengths["positions"] = positions
        for name, entries in lengths.items():
            if len(entries) != spec.nu:
                raise ShapeError(name, expected=(spec.nu,), got=(len(entries),))
        for name, entries in (("deceleration", deceleration), ("scale", sizes)):
            if not all(entry > 0.0 for entry in entries):
                raise RangeError(name, value=tuple(entries), expected="positive numbers")
        indices = (*velocities, *positions)
        if not all(0 <= index < spec.nx for index in indices):
            raise RangeError("indices", value=indices, expected=f"within 0 and {spec.nx - 1}")
        self.spec, self.command = spec, command
        self.velocities, self._positions = list(velocities), list(positions)
        self._deceleration = torch.tensor(deceleration, dtype=torch.float64)
        self.scale = torch.tensor(sizes, dtype=torch.float64)

    @property
    def needs_observation(self) -> bool:
        """Whether there is no safe action before anything was observed: rest is where one is."""
        return self.command == "position"

    @property
    def is_closed_loop(self) -> bool:
        """Whether the newest observation is better than the one at the begin of the stop.

        Accelerations correct what is measured. A velocity taken from the measurement would lag
        behind it, and the stop would last longer than asked for.
        """
        return self.command == "acceleration"

    def action(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        """Return the action for the period that begins now.

        Args:
            observation: Shape (batch, spec.nx + 1), the last column in [s].

        Raises:
            ShapeError: If the column of the time is missing.
        """
        if observation.shape[1] != self.spec.nx + 1:
            expected = ("batch", self.spec.nx + 1)
            raise ShapeError("observation", expected=expected, got=tuple(observation.shape))
        limits = action_limits(self.spec, observation)
        scale, period = self.scale.to(observation), self.spec.period
        velocity, time = observation[:, self.velocities], observation[:, -1:]
        lasts = (velocity.abs() / self._deceleration.to(observation)).amax(-1, keepdim=True)
        now, later = _share(time, lasts), _share(time + period, lasts)
        if self.command == "velocity":
            action = velocity * later
        elif self.command == "acceleration":
            action = velocity * (later - now) / period
        else:
            # The integral of a ramp that falls from 1 to 0 is (1 - share^2) / 2 of its length.
            travelled = 0.5 * lasts * (1.0 - later.square())
            action = observation[:, self._positions] + velocity * travelled
        finite = action.isfinite().all(-1, keepdim=True)
        return torch.where(finite, action / scale, 0.0).clamp(*limits)


def slowed(
    profile: StopProfile, observation: Float[Tensor, "batch nx"], applied: Float[Tensor, "batch nu"]
) -> Float[Tensor, "batch nx"]:
    """Return an observation that moves no faster than was commanded.

    One outlier of a measured velocity would else begin a ramp that accelerates.

    Args:
        profile: Of commands that are velocities.
        observation: At the begin of the stop, shape (batch, nx).
        applied: The last action that was sent, shape (batch, nu).
    """
    reach = (applied * profile.scale.to(applied)).abs()
    bounded = observation.clone()
    bounded[:, profile.velocities] = observation[:, profile.velocities].clamp(-reach, reach)
    return bounded


def decide_stop(
    fallback: Fallback, observation: Float[Tensor, "batch nx"], elapsed: float
) -> Decision:
    """Return the action of a fallback as a decision, marked as a fallback.

    Args:
        fallback: A `StopProfile`, which is told the time, or any other.
        observation: At the begin of the stop, shape (batch, nx); NaN where there is none.
        elapsed: Time since [s].
    """
    if isinstance(fallback, StopProfile):
        time = observation.new_full((len(observation), 1), elapsed)
        observation = torch.cat([observation, time], dim=1)
    nothing = observation.new_full((len(observation), fallback.spec.nu), torch.nan)
    return Clip(fallback.spec, fallback=fallback).filter(observation, nothing)


def _share(time: Tensor, lasts: Tensor) -> Tensor:
    """Return max(0, 1 - time / lasts); a stop that takes no time is over after its begin."""
    share = (1.0 - time / lasts).clamp(0.0, 1.0)
    return torch.where(lasts > 0.0, share, (time <= 0.0).to(share))

"""How a robot comes to rest, as a guard needs it."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from safectl.types import Decision

Stop = Callable[[Tensor, float], Decision]
"""Decides on an observation, shape (1, nx), and the time since it was made [s]."""


class StopProfiles(NamedTuple):
    """How the robot comes to rest.

    Attributes:
        comfort: Bounded deceleration from the measured motion.
        emergency: As hard as the limits allow.
        needs_observation: Whether there is nothing to send before the first observation.
        is_closed_loop: Whether to decide on the newest observation, not on that at the begin.
        slowed: Where commands are velocities, bounds the motion at the begin of a stop by the last
            action; then no stop commands more than that either.
    """

    comfort: Stop
    emergency: Stop
    needs_observation: bool = False
    is_closed_loop: bool = False
    slowed: Callable[[Tensor, Tensor], Tensor] | None = None

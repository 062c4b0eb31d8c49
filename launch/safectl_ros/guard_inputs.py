"""When what a guard receives can be used: finite, of the right size, plausibly stamped, fresh."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safectl.spec import Signal

NEVER = "none received yet"
HELD_UP = "the guard was held up for"

BEYOND_SHARE = 0.1
"""How far beyond its bounds a signal may be read, as a share of its range: noise at a joint's limit
is no fault."""


class Input:
    """The newest message of one kind, and whether it can be used.

    All times are those of the watchdog's clock [s]. One message that cannot be used makes the input
    unusable until the next good one; a timeout does the same.

    Args:
        size: Numbers per message.
        timeout: Age from which on the input is stale [s].
        stamp_tolerance: How far a stamp may be from the time of arrival, either way [s]; 0 for any.
        signals: What the numbers are, where those beyond the bounds cannot be used.
    """

    def __init__(
        self,
        size: int,
        *,
        timeout: float,
        stamp_tolerance: float,
        signals: Sequence[Signal] = (),
    ) -> None:
        self.size, self.timeout, self.stamp_tolerance = size, timeout, stamp_tolerance
        self._values: Tensor | None = None
        self._arrived = self._good_at = self._good_since = -math.inf
        self._fault = NEVER
        self._has_lapsed = False
        self._bounds = [_widened(signal) for signal in signals]

    @property
    def values(self) -> Tensor | None:
        """The last good values, shape (1, size), float32; None before the first."""
        return self._values

    def receive(
        self, values: NDArray[np.float64], now: float, *, stamp_age: float | None = None
    ) -> None:
        """Take a message in.

        Args:
            values: Numbers of any count and value, as received.
            now: Time of arrival [s].
            stamp_age: How old its stamp says it is [s]; None where it has no stamp.
        """
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused
            numbers = values.astype(np.float32)
        fault = self._judge(numbers, stamp_age)
        if fault:
            self.refuse(fault, now)
            return
        if lapse := self.fault(now):
            self._good_since = now
            self._has_lapsed = self._has_lapsed or lapse != NEVER
        self._values = torch.from_numpy(numbers[None])
        self._arrived, self._good_at, self._fault = now, now, ""

    def refuse(self, fault: str, now: float) -> None:
        """Note a message that could not even be read."""
        self._arrived, self._fault, self._has_lapsed = now, fault, True

    def miss(self, late: float, now: float) -> None:
        """Note that nobody listened for a while [s]; beyond the timeout what came meanwhile is old.

        The message that was taken last, if there is one, may have waited so long.
        """
        if late > self.timeout and self._values is not None:
            self.refuse(f"{HELD_UP} {late:.3f} s", now)

    def take_lapse(self) -> bool:
        """Return whether it was unusable at any time since the last call, however briefly."""
        lapsed, self._has_lapsed = self._has_lapsed, False
        return lapsed

    def fault(self, now: float, *, timeout: float | None = None) -> str:
        """Return why the input cannot be used, empty if it can.

        Args:
            now: The time [s].
            timeout: Another limit than the usual one [s].
        """
        limit, age = self.timeout if timeout is None else timeout, self.age(now)
        if self._fault:
            return self._fault
        return "" if 0.0 <= age <= limit else f"{age:.3f} s old, at most {limit:g} s"

    @property
    def good_at(self) -> float:
        """When the last good values arrived [s]; minus infinity before the first."""
        return self._good_at

    def age(self, now: float) -> float:
        """Return the time since the last message [s]; infinity before the first."""
        return now - self._arrived

    def good_for(self, now: float) -> float:
        """Return how long the input has been usable [s]; 0 where it is not."""
        return 0.0 if self.fault(now) else now - self._good_since

    def _judge(self, numbers: NDArray[np.float32], stamp_age: float | None) -> str:
        if numbers.shape != (self.size,):
            return f"has the shape {numbers.shape}, expected ({self.size},)"
        if not all(map(math.isfinite, numbers.tolist())):
            return "is not finite"
        for value, (name, low, high) in zip(numbers.tolist(), self._bounds, strict=False):
            if not low <= value <= high:
                return f"has {name} at {value:g}, which no robot within its bounds reports"
        if stamp_age is None or self.stamp_tolerance == 0.0:
            return ""
        if not -self.stamp_tolerance <= stamp_age <= self.stamp_tolerance:  # NaN too
            where = "old" if stamp_age > 0.0 else "in the future"
            return f"is stamped {abs(stamp_age):.3f} s {where}"
        return ""


class EmergencyStop:
    """The e-stop: pressed, silent or never heard of are all the same until the reset.

    Args:
        timeout: Age of the heartbeat from which on it counts as pressed [s].
        is_used: Whether the robot has one; without, it is never pressed.
    """

    def __init__(self, *, timeout: float, is_used: bool) -> None:
        self.timeout, self.is_used = timeout, is_used
        self._pressed, self._heard = False, -math.inf
        self._latched, self._unheard = is_used, ""

    def hear(self, *, pressed: bool, now: float) -> None:
        """Take a heartbeat in [s]; a press is latched whatever the guard is doing."""
        self._pressed, self._heard = pressed, now
        self._latched = self._latched or (pressed and self.is_used)

    def miss(self, late: float) -> None:
        """Note that nobody listened for a while [s], in which a press may have gone unheard."""
        if late > self.timeout:
            self.distrust(f"{HELD_UP} {late:.3f} s")

    def distrust(self, why: str) -> None:
        """Latch because a press may have gone unheard."""
        self._latched, self._unheard = self._latched or self.is_used, why

    def cause(self, now: float) -> str:
        """Return why the robot must not move now, apart from the latch; empty if it may."""
        if not self.is_used:
            return ""
        if self._heard == -math.inf:
            return f"e-stop: {NEVER}"
        if self._pressed:
            return "e-stop: pressed"
        age = now - self._heard
        return "" if 0.0 <= age <= self.timeout else f"e-stop: silent for {age:.3f} s"

    def check(self, now: float) -> str:
        """Return why the robot must not move, and latch it; empty if it may."""
        cause = self.cause(now)
        self._latched = self._latched or bool(cause)
        waits = f"e-stop: {self._unheard or 'released'}, waiting for reset"
        return cause or (waits if self._latched else "")

    def reset(self) -> None:
        """Take the latch off; the next check latches again if there is a cause."""
        self._latched, self._unheard = False, ""


def _widened(signal: Signal) -> tuple[str, float, float]:
    """Return the name of a signal and what can be read of it."""
    margin = BEYOND_SHARE * (signal.high - signal.low)
    if math.isinf(margin):
        margin = 0.0
    return signal.name, signal.low - margin, signal.high + margin

"""What the last link before the motors does with commands: follow the newest one, or stop."""

import numpy as np

from safectl_ros.adapters.interface import Array


class LastLink:
    """A watchdog without a clock: instants are arguments, on a steady clock [s].

    The command is zero until the first one has come, when the newest is older than the deadline,
    and from a refused command until the next good one. Nothing is filtered here: what may be
    followed is the guard's business.

    Args:
        size: Number of actions.
        deadline_s: Silence after which the robot stops [s].

    Attributes:
        reason: Why the robot is stopped; empty while it follows commands.
        refused: Number of refused commands.
    """

    def __init__(self, size: int, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._zero = np.zeros(size)
        self._newest = self._zero
        self._heard = 0.0
        self.reason = "no command yet"
        self.refused = 0

    def receive(self, command: Array, now: float) -> bool:
        """Take a command of shape (size,); returns whether it is followed: it must be finite."""
        if not np.isfinite(command).all():
            self.refuse("the command is not finite")
            return False
        self._newest, self._heard, self.reason = command, now, ""
        return True

    def refuse(self, reason: str) -> None:
        """Stop because of a command that cannot be followed."""
        self.refused += 1
        self.stop(f"refused: {reason}")

    def stop(self, reason: str) -> None:
        """Stop until the next good command."""
        self._newest, self.reason = self._zero, reason

    def forget(self) -> None:
        """Stop because the robot starts anew; a command from before does not count."""
        self.stop("no command yet")

    def command(self, now: float) -> Array:
        """Return what the motors get at an instant, shape (size,)."""
        if not self.reason and not now - self._heard <= self._deadline_s:
            self.stop(f"no command for {self._deadline_s:g} s")
        return self._newest

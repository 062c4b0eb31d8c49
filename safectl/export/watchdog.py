"""The watchdog of generated controllers in Python: the same states as `runtime/sf_watchdog.c`.

For simulations and tests of what a board will do; it decides on stamps, never on a clock.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from safectl.errors import RangeError

_HALF, _WORD = 2**31, 2**32


class Mode(IntEnum):
    """Whether actions may be computed."""

    STOPPED = 0
    RUNNING = 1
    TRIPPED = 2


@dataclass(slots=True)
class Watchdog:
    """Lets a controller run only while it is armed and its observations are fresh.

    It starts stopped. Arming succeeds only with a fresh observation. A stale one trips it, and it
    stays tripped until it is armed again. Stamps count ticks modulo 2^32; one from the future is
    stale.

    Attributes:
        limit: Largest age of an observation [ticks], below 2^31.
        mode: What it does now.
        trips: How often it tripped.
    """

    limit: int
    mode: Mode = field(default=Mode.STOPPED, init=False)
    trips: int = field(default=0, init=False)
    _stamp: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.limit < _HALF:
            raise RangeError("limit", value=self.limit, expected="zero or more ticks, below 2^31")

    def observe(self, stamp: int, now: int) -> bool:
        """Take note of an observation; a repeated, delayed or stale one changes nothing."""
        if (now - stamp) % _WORD > self.limit:
            return False
        if self._stamp is not None and self._is_fresh(now):
            newer_by = (stamp - self._stamp) % _WORD
            if newer_by == 0 or newer_by >= _HALF:
                return False
        self._stamp = stamp % _WORD
        return True

    def arm(self, now: int) -> bool:
        """Start if the newest observation is fresh; return whether it runs."""
        if self._is_fresh(now):
            self.mode = Mode.RUNNING
        return self.check(now)

    def check(self, now: int) -> bool:
        """Trip if it runs on a stale observation; return whether it still runs."""
        if not self._is_fresh(now):
            self._stamp = None  # when the counter has gone round it would look fresh again
            self._trip()
        return self.mode == Mode.RUNNING

    def run(self, stamp: int, now: int) -> bool:
        """Observe; trip if this observation or the newest is stale.

        Returns:
            Whether it runs and this is the newest observation, for the first time or again.
        """
        self.observe(stamp, now)
        if (now - stamp) % _WORD > self.limit:
            self._trip()
        return self.check(now) and stamp % _WORD == self._stamp

    def stop(self) -> None:
        """Stop at once, without a trip."""
        self.mode = Mode.STOPPED

    def _trip(self) -> None:
        if self.mode == Mode.RUNNING:
            self.mode = Mode.TRIPPED
            self.trips += 1

    def _is_fresh(self, now: int) -> bool:
        return self._stamp is not None and (now - self._stamp) % _WORD <= self.limit

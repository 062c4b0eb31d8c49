"""SIGTERM and SIGINT as exceptions that wait for the end of what must not be cut in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """A signal handler that raises once; within `hold` it waits for the end of the block."""

    def __init__(self) -> None:
        self._is_held = False
        self._was_raised = False
        self._pending: int | None = None

    @property
    def pending(self) -> int | None:
        """The signal that has not been raised yet."""
        return None if self._was_raised else self._pending

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise, or note the signal where it is held or one was raised already."""
        self._pending = number
        if self._was_raised or self._is_held:
            return
        self._was_raised = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)  # the exit status a shell reports for a process so ended

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let the block finish, then raise what came meanwhile."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self.pending is not None:
            self(self.pending, None)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Raise `SystemExit` on SIGTERM and `KeyboardInterrupt` on SIGINT; restore the handlers after.

    Once one was raised, further ones are ignored until the end. Only the main thread can set
    handlers; elsewhere, and for handlers that were not set from Python, nothing changes.
    """
    interruption, previous = Interruption(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler is not None:
                previous[number] = handler
                signal.signal(number, interruption)
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if interruption.pending is not None:
            signal.raise_signal(interruption.pending)

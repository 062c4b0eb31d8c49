"""A thread for long computations that never touches ROS, with slots of length one."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

_PATIENCE_S = 1.0

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Finished(Generic[Result]):
    """What came of a job: its number, and the result or the text of the exception."""

    number: int
    result: Result | None
    failure: str


class Worker(Generic[Job, Result]):
    """Runs one job at a time; a new job replaces the one that still waits.

    The thread is a daemon: a computation that hangs does not keep the process alive.

    Args:
        work: What to run; an exception is reported and does not end the thread.
        name: Of the thread.
    """

    def __init__(self, work: Callable[[Job], Result], *, name: str) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._waiting: tuple[int, Job] | None = None
        self._finished: Finished[Result] = Finished(0, None, "")
        self._submitted = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a job waits or runs."""
        with self._changed:
            return self._finished.number < self._submitted

    @property
    def newest(self) -> Finished[Result]:
        """What was finished last; number 0 before the first."""
        with self._changed:
            return self._finished

    def submit(self, job: Job) -> int:
        """Hand in a job and return its number, from 1 on."""
        with self._changed:
            self._submitted += 1
            self._waiting = (self._submitted, job)
            self._changed.notify_all()
            return self._submitted

    def wait(self, number: int, timeout_s: float) -> Finished[Result] | None:
        """Return what came of a job, or None if it takes longer than `timeout_s`."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._finished.number >= number, timeout_s)
            return self._finished if done else None

    def close(self) -> None:
        """End the thread after the job that runs; waits for it, but not for one that hangs.

        A process that ends while a job is in torch is aborted (SIGABRT) by the C++ runtime.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._is_closed)
                if self._waiting is None or self._is_closed:
                    return
                (number, job), self._waiting = self._waiting, None
            finished = attempt(self._work, job, number)
            with self._changed:
                self._finished = finished
                self._changed.notify_all()


def attempt(work: Callable[[Job], Result], job: Job, number: int) -> Finished[Result]:
    """Run a job here and now; an exception becomes the text of a failure."""
    try:
        return Finished(number, work(job), "")
    except Exception as error:  # noqa: BLE001  reported; the robot is stopped by who waits
        return Finished(number, None, f"{type(error).__name__}: {error}")

"""A filter with a time budget: it decides in time, or not at all."""

import time

from torch import Tensor

from safectl.types import Decision, Safeguard
from safectl_ros.durations import Durations
from safectl_ros.worker import Finished, Worker, attempt

_Job = tuple[Safeguard, Tensor, Tensor]


class BudgetedFilter:
    """Calls a safeguard and waits for it at most as long as the budget.

    One that takes a bounded number of operations runs in the caller's thread, which saves two
    changes of threads, and what it decides too late is dropped. Any other runs in a thread of its
    own; while a call that was given up still runs, further calls fail at once.

    Args:
        safeguard: Decides on a batch of one.
        budget_s: Longest wait [s].
        is_bounded: Whether it takes a bounded number of operations.
    """

    def __init__(self, safeguard: Safeguard, budget_s: float, *, is_bounded: bool) -> None:
        self.safeguard, self.budget_s = safeguard, budget_s
        self.failure = ""
        """Why the last call gave nothing; empty if it gave a decision."""
        self.failures = 0
        """How many calls gave nothing."""
        self.times = Durations()
        """Of the calls that ended in time."""
        self._worker: Worker[_Job, Decision] | None = None
        if not is_bounded:
            self._worker = Worker(_filter, name="filter")

    def __call__(self, observation: Tensor, action: Tensor) -> Decision | None:
        """Return a decision, None where there is none in time."""
        started, job = time.monotonic(), (self.safeguard, observation, action)
        if self._worker is None:
            finished: Finished[Decision] | None = attempt(_filter, job, 1)
        elif self._worker.is_busy:
            return self._give_up(f"still busy after its budget of {self.budget_s:g} s")
        else:
            finished = self._worker.wait(self._worker.submit(job), self.budget_s)
        elapsed = time.monotonic() - started
        if finished is None or elapsed > self.budget_s:
            return self._give_up(f"over its budget of {self.budget_s:g} s")
        self.times.add(elapsed)
        if finished.result is None:
            return self._give_up(finished.failure)
        self.failure = ""
        return finished.result

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._worker is not None:
            self._worker.close()

    def _give_up(self, failure: str) -> Decision | None:
        self.failure = failure
        self.failures += 1
        return None


def _filter(job: _Job) -> Decision:
    safeguard, observation, action = job
    return safeguard.filter(observation, action)

"""A filter with a time budget: it decides in a thread of its own, or not at all."""

import time

import numpy as np
from torch import Tensor

from safectl.types import Decision, Safeguard
from safectl_ros.worker import Worker

_KEPT_TIMES = 512


class BudgetedFilter:
    """Calls a safeguard and waits for it at most as long as the budget.

    While a call that was given up still runs, further calls fail at once.

    Args:
        safeguard: Decides on a batch of one.
        budget_s: Longest wait [s].
    """

    def __init__(self, safeguard: Safeguard, budget_s: float) -> None:
        self.safeguard, self.budget_s = safeguard, budget_s
        self.failure = ""
        """Why the last call gave nothing; empty if it gave a decision."""
        self.failures = 0
        """How many calls gave nothing."""
        self._times = np.full(_KEPT_TIMES, np.nan)
        self._calls = 0
        self._worker = Worker[tuple[Safeguard, Tensor, Tensor], Decision](_filter, name="filter")

    def __call__(self, observation: Tensor, action: Tensor) -> Decision | None:
        """Return a decision, None where there is none in time."""
        if self._worker.is_busy:
            return self._give_up(f"still busy after its budget of {self.budget_s:g} s")
        started = time.monotonic()
        number = self._worker.submit((self.safeguard, observation, action))
        finished = self._worker.wait(number, self.budget_s)
        if finished is None:
            return self._give_up(f"over its budget of {self.budget_s:g} s")
        self._times[self._calls % _KEPT_TIMES] = time.monotonic() - started
        self._calls += 1
        if finished.result is None:
            return self._give_up(finished.failure)
        self.failure = ""
        return finished.result

    def solve_times(self) -> tuple[float, float]:
        """Return median and 99th percentile of the last calls that ended in time [s]."""
        if self._calls == 0:
            return 0.0, 0.0
        median, p99 = np.nanquantile(self._times, [0.5, 0.99])
        return float(median), float(p99)

    def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _give_up(self, failure: str) -> Decision | None:
        self.failure = failure
        self.failures += 1
        return None


def _filter(job: tuple[Safeguard, Tensor, Tensor]) -> Decision:
    safeguard, observation, action = job
    return safeguard.filter(observation, action)

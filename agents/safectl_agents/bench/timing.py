"""Timing for ratios: warm up, repeat, report the spread."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Timing(NamedTuple):
    """Seconds per call: median, 99th percentile, largest, and how many calls were timed."""

    median: float
    p99: float
    largest: float
    calls: int

    def as_details(self, prefix: str) -> dict[str, float]:
        """Return the spread in microseconds for a result file."""
        return {
            f"{prefix}_median_us": round(self.median * 1e6, 2),
            f"{prefix}_p99_us": round(self.p99 * 1e6, 2),
            f"{prefix}_max_us": round(self.largest * 1e6, 2),
            f"{prefix}_calls": self.calls,
        }


def time_calls(call: Callable[[], object], *, calls: int, warm_up: int = 3) -> Timing:
    """Time `call` after a warm-up."""
    for _ in range(warm_up):
        call()
    seconds = np.empty(calls)
    for index in range(calls):
        started = time.perf_counter()
        call()
        seconds[index] = time.perf_counter() - started
    median, p99 = np.quantile(seconds, [0.5, 0.99])
    return Timing(float(median), float(p99), float(seconds.max()), calls)

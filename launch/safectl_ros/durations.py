"""How long the last calls took."""

import numpy as np

_KEPT = 512


class Durations:
    """Median and 99th percentile of the last 512 durations."""

    def __init__(self) -> None:
        self._seconds = np.full(_KEPT, np.nan)
        self.count = 0
        """Of all durations so far."""

    def add(self, seconds: float) -> None:
        """Note one."""
        self._seconds[self.count % _KEPT] = seconds
        self.count += 1

    def median_and_p99(self) -> tuple[float, float]:
        """Return both [s]; zeros before the first."""
        if self.count == 0:
            return 0.0, 0.0
        median, p99 = np.nanquantile(self._seconds, [0.5, 0.99])
        return float(median), float(p99)

"""Estimates with 95 % intervals, from few and dependent numbers, without a statistics package."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from safectl.errors import RangeError

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2.0)
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182}  # too few degrees of freedom for the expansion below


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its 95 % confidence interval, in one unit."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def mean_interval(values: Sequence[float]) -> Interval:
    """Estimate a mean from independent values by Student's t.

    The interval assumes that the mean of the sample is about normal.

    Raises:
        RangeError: If there are fewer than two values.
    """
    count = _at_least_two(len(values))
    mean = float(np.mean(values))
    half = _student(count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def share_interval(hits: int, count: int) -> Interval:
    """Estimate a probability from independent trials by Wilson's score interval (1927).

    Raises:
        RangeError: If `count` < 1 or `hits` is outside 0..count.
    """
    if not (count >= 1 and 0 <= hits <= count):
        raise RangeError("hits, trials", value=(hits, count), expected="0 <= hits <= trials >= 1")
    share = hits / count
    scale = 1.0 + _Z**2 / count
    centre = (share + _Z**2 / (2.0 * count)) / scale
    half = _Z / scale * math.sqrt(share * (1.0 - share) / count + _Z**2 / (4.0 * count**2))
    low = 0.0 if hits == 0 else centre - half
    return Interval(share, low, 1.0 if hits == count else centre + half)


def rate_interval(
    hits: Sequence[int], lengths: Sequence[int], generator: np.random.Generator
) -> Interval:
    """Estimate a rate per step whose steps depend on each other within an episode.

    The episodes are the independent units: the ratio sum(hits) / sum(lengths) is bootstrapped over
    episodes (10,000 percentile resamples). Where no episode, or every step, has a hit the bootstrap
    has no spread; then the open end is Wilson's bound on the share of episodes that would differ,
    times the longest over the mean length, because such an episode may differ in all its steps.

    Args:
        hits: Steps with the event, per episode.
        lengths: Steps, per episode, each >= 1.
        generator: Source of the resamples.

    Raises:
        RangeError: If there are fewer than two episodes.
    """
    count = _at_least_two(len(hits))
    numerators, denominators = np.array(hits, float), np.array(lengths, float)
    rate = float(numerators.sum() / denominators.sum())
    spread = share_interval(0, count).high * float(denominators.max() / denominators.mean())
    if rate == 0.0:
        return Interval(0.0, 0.0, min(1.0, spread))
    if rate == 1.0:
        return Interval(1.0, max(0.0, 1.0 - spread), 1.0)
    low, high = _bootstrap(numerators, denominators, generator)
    return Interval(rate, low, high)


def _bootstrap(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    generator: np.random.Generator,
    resamples: int = 10_000,
) -> tuple[float, float]:
    """Return the ends of the percentile interval of a ratio of sums."""
    count = len(numerators)
    weights = generator.multinomial(count, np.full(count, 1.0 / count), size=resamples)
    ratios = (weights @ numerators) / (weights @ denominators)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(ratios, (tail, 1.0 - tail))
    return float(low), float(high)


def _student(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t.

    Expansion in 1 / freedom, Abramowitz and Stegun 26.7.5; off by less than 0.001 from four on.
    """
    if freedom in _STUDENT:
        return _STUDENT[freedom]
    z, n = _Z, float(freedom)
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    fourth = (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0
    return z + first / n + second / n**2 + third / n**3 + fourth / n**4


def _at_least_two(count: int) -> int:
    if count < 2:
        raise RangeError("episodes", value=count, expected="at least 2: one has no spread")
    return count

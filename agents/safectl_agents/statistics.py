"""Estimates with 95 % intervals, from few and dependent numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from safectl.errors import RangeError

CONFIDENCE = 0.95
_RESAMPLES = 10_000
_STRATIFIED_RESAMPLES = 2_000
_TAILS = (0.5 * (1.0 - CONFIDENCE), 0.5 * (1.0 + CONFIDENCE))


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
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2.0, count - 1))
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def share_interval(hits: int, count: int) -> Interval:
    """Estimate a probability from independent trials by Wilson's score interval (1927).

    Raises:
        RangeError: If `count` < 1 or `hits` is outside 0..count.
    """
    if not (count >= 1 and 0 <= hits <= count):
        raise RangeError("hits, trials", value=(hits, count), expected="0 <= hits <= trials >= 1")
    found = stats.binomtest(hits, count).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(hits / count, float(found.low), float(found.high))


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
    found = stats.bootstrap(
        (numerators, denominators),
        lambda hit, length, axis: hit.sum(axis) / length.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=generator,
    ).confidence_interval
    return Interval(rate, float(found.low), float(found.high))


def iqm_interval(scores: NDArray[np.float64], generator: np.random.Generator) -> Interval:
    """Estimate the mean of the middle half of scores over runs and tasks (IQM).

    The interval is a stratified bootstrap: runs are drawn anew within every task (2,000 percentile
    resamples), after Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the
    Statistical Precipice".

    Args:
        scores: Shape (runs, tasks).
        generator: Source of the resamples.

    Raises:
        RangeError: If there are fewer than two runs.
    """
    low, high = np.quantile(_resampled_iqm(scores, generator), _TAILS)
    return Interval(float(stats.trim_mean(scores, 0.25, axis=None)), float(low), float(high))


def iqm_ratio_interval(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    least: float,
    generator: np.random.Generator,
) -> Interval:
    """Estimate the ratio of two interquartile means, both bootstrapped as in `iqm_interval`.

    Args:
        ours: Scores above the line, shape (runs, tasks).
        theirs: Scores below it, shape (runs, tasks).
        least: What the divisor counts as where it is less, > 0.
        generator: Source of the resamples.

    Raises:
        RangeError: If there are fewer than two runs of either.
    """
    above, below = (_resampled_iqm(scores, generator) for scores in (ours, theirs))
    low, high = np.quantile(above / np.maximum(below, least), _TAILS)
    divisor = max(float(stats.trim_mean(theirs, 0.25, axis=None)), least)
    estimate = float(stats.trim_mean(ours, 0.25, axis=None)) / divisor
    return Interval(estimate, float(low), float(high))


def _resampled_iqm(
    scores: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the IQM of runs drawn anew within every task, shape (resamples,)."""
    runs = _at_least_two(len(scores))
    rows = generator.integers(runs, size=(_STRATIFIED_RESAMPLES, *scores.shape))
    resampled = np.take_along_axis(scores[None], rows, 1).reshape(_STRATIFIED_RESAMPLES, -1)
    found: NDArray[np.float64] = stats.trim_mean(resampled, 0.25, axis=1)
    return found


def _at_least_two(count: int) -> int:
    if count < 2:
        raise RangeError("episodes", value=count, expected="at least 2: one has no spread")
    return count

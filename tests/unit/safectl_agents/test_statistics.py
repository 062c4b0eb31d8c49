import numpy as np
import pytest

from safectl.errors import RangeError
from safectl_agents.statistics import (
    Interval,
    iqm_interval,
    iqm_ratio_interval,
    mean_interval,
    rate_interval,
    share_interval,
)


@pytest.mark.parametrize(
    ("count", "quantile"), [(2, 12.706), (4, 3.182), (5, 2.776), (10, 2.262), (31, 2.042)]
)
def test_the_mean_has_students_interval(count, quantile):
    values = np.random.default_rng(0).normal(3.0, 2.0, count).tolist()
    found = mean_interval(values)
    half = quantile * np.std(values, ddof=1) / np.sqrt(count)
    assert found.estimate == pytest.approx(np.mean(values))
    assert (found.high - found.low) / 2.0 == pytest.approx(half, rel=1e-3)


def test_a_constant_has_an_interval_without_width():
    assert mean_interval([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 2.0)


def test_a_share_has_wilsons_interval():
    found = share_interval(1, 10)  # Wilson (1927) as tabulated in Newcombe (1998)
    assert (found.low, found.high) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    none = share_interval(0, 20)
    assert none.low == 0.0
    assert none.high == pytest.approx(0.1611, abs=1e-4)
    assert share_interval(20, 20).high == 1.0


def test_no_hit_is_not_taken_for_certainty():
    generator = np.random.default_rng(0)
    found = rate_interval([0] * 10, [50] * 10, generator)
    assert (found.estimate, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(share_interval(0, 10).high)
    always = rate_interval([5] * 10, [5] * 10, generator)
    assert always.low == pytest.approx(1.0 - found.high)


def test_a_rate_treats_episodes_and_not_steps_as_independent():
    hits = [100] * 5 + [0] * 5
    found = rate_interval(hits, [100] * 10, np.random.default_rng(0))
    assert found.estimate == 0.5
    assert found.high - found.low > 0.5  # a thousand independent steps would give 0.06


@pytest.mark.slow
def test_the_interval_of_a_rate_covers_the_truth():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        risks = generator.beta(1.0, 4.0, 30)  # episodes differ; the mean rate is 0.2
        hits = generator.binomial(40, risks).tolist()
        found = rate_interval(hits, [40] * 30, generator)
        covered += found.low <= 0.2 <= found.high
    assert covered >= 85  # the percentile interval of 30 skewed values covers about 93 %


def test_intervals_need_two_episodes_and_possible_counts():
    with pytest.raises(RangeError, match="at least 2"):
        mean_interval([1.0])
    with pytest.raises(RangeError, match="at least 2"):
        rate_interval([0], [5], np.random.default_rng(0))
    with pytest.raises(RangeError, match="trials"):
        share_interval(3, 2)


def test_the_interquartile_mean_and_its_stratified_interval():
    generator = np.random.default_rng(0)
    scores = np.array([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0], [300.0, 13.0]])
    found = iqm_interval(scores, generator)
    assert found.estimate == pytest.approx((2.0 + 10.0 + 11.0 + 12.0) / 4.0)
    assert found.low < found.estimate < found.high
    equal = iqm_interval(np.full((5, 4), 3.0), generator)
    assert (equal.estimate, equal.low, equal.high) == (3.0, 3.0, 3.0)
    with pytest.raises(RangeError, match="at least 2"):
        iqm_interval(scores[:1], generator)


def test_a_ratio_of_interquartile_means_covers_the_true_one_and_has_a_least_divisor():
    generator = np.random.default_rng(0)
    theirs = generator.normal(100.0, 5.0, (5, 4))
    ours = generator.normal(300.0, 5.0, (5, 4))
    found = iqm_ratio_interval(ours, theirs, 1.0, generator)
    assert found.low < 3.0 < found.high
    assert found.high - found.low < 0.4
    nothing = iqm_ratio_interval(ours, np.zeros((5, 4)), 1.0, generator)
    assert nothing.estimate == pytest.approx(iqm_interval(ours, generator).estimate)
    with pytest.raises(RangeError, match="at least 2"):
        iqm_ratio_interval(ours[:1], theirs, 1.0, generator)

import math

import pytest
import torch

from safectl.errors import RangeError, UnknownNameError
from safectl.models import UpdateSettings
from safectl.models.conservative import (
    CANDIDATES,
    Candidates,
    log_alpha_gradient,
    measure_penalty,
    value_penalty,
)

HEADS, ROWS, NZ, FLOOR = 2, 5, 4, 2.0 * math.log(12)


def candidates(forward: torch.Tensor) -> Candidates:
    """Eleven of them, of which the first counts twice."""
    log_count = torch.zeros(forward.shape[1])
    log_count[0] = math.log(2.0)
    return Candidates(forward, log_count)


def test_there_are_twelve_candidates():
    assert CANDIDATES == 12


def test_the_floor_of_both_penalties_is_two_times_the_logarithm_of_twelve():
    data, task = torch.randn(HEADS, ROWS, NZ), torch.randn(ROWS, NZ)
    equal = candidates(data[:, None].expand(-1, 11, -1, -1))
    assert float(value_penalty(equal, data, task)) == pytest.approx(FLOOR, abs=1e-4)
    assert float(measure_penalty(equal, data, task)) == pytest.approx(FLOOR, abs=1e-4)


def test_a_copy_counts_like_a_candidate_written_twice():
    forward, task = torch.randn(HEADS, 11, ROWS, NZ), torch.randn(ROWS, NZ)
    data = forward[:, 0]
    twice = Candidates(torch.cat([forward, data[:, None]], 1), torch.zeros(12))
    for penalty in (value_penalty, measure_penalty):
        counted = penalty(candidates(forward), data, task)
        assert torch.allclose(counted, penalty(twice, data, task), atol=1e-5)


def test_the_gradient_of_a_penalty_lowers_candidates_and_raises_the_data():
    forward = torch.zeros(HEADS, 11, ROWS, NZ, requires_grad=True)
    data = torch.zeros(HEADS, ROWS, NZ, requires_grad=True)
    task = torch.ones(ROWS, NZ)
    value_penalty(candidates(forward), data, task).backward()
    assert forward.grad is not None
    assert data.grad is not None
    assert bool((forward.grad > 0).all())
    assert bool((data.grad < 0).all())


def test_alpha_grows_above_the_budget_shrinks_below_it_and_stops_at_its_bound():
    zero, huge = torch.tensor(0.0), torch.tensor(20.0)
    assert float(log_alpha_gradient(zero, torch.tensor(60.0), 50.0)) == -5.0
    assert float(log_alpha_gradient(zero, torch.tensor(40.0), 50.0)) == 5.0
    assert float(log_alpha_gradient(huge, torch.tensor(60.0), 50.0)) == 0.0


def test_a_budget_that_can_never_be_met_and_unknown_methods_are_refused():
    with pytest.raises(RangeError, match="2 ln 12"):
        UpdateSettings(budget=4.9)
    with pytest.raises(UnknownNameError, match="vc-fb"):
        UpdateSettings(method="vcfb")

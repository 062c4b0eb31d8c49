"""Where the bounds of a table hold."""

from dataclasses import replace

import pytest
import torch

from safectl.barriers import Discs
from safectl.errors import NonFiniteError, RangeError
from safectl.models import scope_of

STATES = torch.tensor([[[0.0, 0.0, -0.1], [1.0, 2.0, 0.1]], [[0.5, 1.0, 0.0], [0.2, 0.4, 0.0]]])
SCOPE = scope_of(STATES, Discs(torch.tensor([[0.5, 0.5]]), 0.2), 7)
ROWS = torch.tensor(
    [
        [0.5, 1.0, 0.0],
        [1.04, 2.09, 0.105],
        [0.5, 0.5, 0.0],
        [1.1, 1.0, 0.0],
        [0.5, 1.0, 3.0],
        [100.0, 100.0, 100.0],
        [torch.nan, 1.0, 0.0],
    ]
)


def test_beyond_what_was_met_and_in_the_set_the_bound_is_one():
    found = SCOPE.bound(ROWS, torch.full((7,), 0.01))
    assert found.tolist() == pytest.approx([0.01, 0.01, 1.0, 1.0, 1.0, 1.0, 1.0])
    order = SCOPE.order(ROWS, torch.full((7,), 3.0))
    assert order.tolist() == [3.0, 3.0, 3.0] + [torch.inf] * 4


def test_the_box_is_that_of_all_states_and_a_twentieth_more():
    assert SCOPE.low.tolist() == pytest.approx([-0.05, -0.1, -0.11])
    assert SCOPE.high.tolist() == pytest.approx([1.05, 2.1, 0.11])


def test_what_is_no_scope_is_refused():
    with pytest.raises(NonFiniteError, match="states holds 1"):
        scope_of(torch.tensor([[1.0, torch.inf]]), SCOPE.unsafe, 7)
    with pytest.raises(RangeError, match="steps"):
        replace(SCOPE, steps=0)
    with pytest.raises(RangeError, match="low"):
        replace(SCOPE, low=SCOPE.high, high=SCOPE.low)

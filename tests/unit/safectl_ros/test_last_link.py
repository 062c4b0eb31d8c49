"""The watchdog of the last link, without a graph and without a clock."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safectl_ros.last_link import LastLink

DEADLINE_S = 0.5
FORWARD = np.array([1.0, -2.0])


def test_nothing_moves_before_the_first_command():
    link = LastLink(2, DEADLINE_S)
    assert link.command(0.0).tolist() == [0.0, 0.0]
    assert link.reason == "no command yet"


def test_the_newest_command_is_followed_until_the_deadline():
    link = LastLink(2, DEADLINE_S)
    assert link.receive(FORWARD, 1.0)
    assert link.command(1.0 + DEADLINE_S).tolist() == FORWARD.tolist()
    assert link.reason == ""
    assert link.command(1.0 + DEADLINE_S + 1e-3).tolist() == [0.0, 0.0]
    assert link.reason == "no command for 0.5 s"
    assert link.receive(FORWARD, 9.0)
    assert link.command(9.0).tolist() == FORWARD.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_command_that_is_not_finite_stops_at_once_and_is_counted(value):
    link = LastLink(2, DEADLINE_S)
    link.receive(FORWARD, 1.0)
    assert not link.receive(np.array([1.0, value]), 1.1)
    assert link.command(1.1).tolist() == [0.0, 0.0]
    assert link.reason == "refused: the command is not finite"
    assert link.refused == 1


def test_a_stop_and_a_new_start_forget_the_last_command():
    link = LastLink(2, DEADLINE_S)
    for forget in (lambda: link.stop("deadline"), link.forget, lambda: link.refuse("wrong size")):
        link.receive(FORWARD, 1.0)
        forget()
        assert link.command(1.0).tolist() == [0.0, 0.0]
        assert link.reason


def test_after_a_new_start_a_command_that_may_have_waited_is_passed_over():
    link = LastLink(2, DEADLINE_S)
    link.forget(queued=1)
    assert not link.receive(FORWARD, 1.0)
    assert link.command(1.0).tolist() == [0.0, 0.0]
    assert not link.is_refusing
    assert link.receive(FORWARD, 1.1)
    assert link.command(1.1).tolist() == FORWARD.tolist()


@given(
    events=st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(width=64) | st.none()), max_size=30)
)
def test_whatever_arrives_the_output_is_a_fresh_good_command_or_zero(events):
    link, now = LastLink(1, DEADLINE_S), 0.0
    good, heard = 0.0, -np.inf
    for pause, value in events:
        now += pause
        if value is not None:
            is_good = link.receive(np.array([value]), now)
            assert is_good == np.isfinite(value)
            good, heard = (value, now) if is_good else (0.0, -np.inf)
        expected = good if now - heard <= DEADLINE_S else 0.0
        assert link.command(now).tolist() == [expected]
        good, heard = (expected, heard) if expected == good else (0.0, -np.inf)

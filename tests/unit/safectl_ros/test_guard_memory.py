"""What a rate limit inside a guard goes on from: what was sent, whatever sent it, and when."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from safectl.safeguards import Brake, Chain, Clip, RateLimit
from safectl_ros.guard_logic import Row, State
from tests.unit.safectl_ros.guard_bench import PERIOD, SETTINGS, SPEC, Bench, action

RATE = 0.5
"""Of the speed [m/s^2]."""


def limited(settings=SETTINGS, *, is_chained=False):
    limit = RateLimit(SPEC, [RATE, RATE], rows=1)
    safeguard = Chain(Clip(SPEC), limit, fallback=Brake(SPEC)) if is_chained else limit
    return Bench(settings, safeguard=safeguard, memories=[limit])


def command(bench, speed, passed=PERIOD):
    bench.now += passed
    bench.logic.estop.hear(pressed=False, now=bench.now)
    bench.see(0.0, 0.0, 0.0)
    bench.command(speed, 0.0)
    return bench.tick()


def full_speed(bench):
    for _ in range(110):
        output = command(bench, 1.0)
    assert action(output)[0] == 1.0


@pytest.mark.parametrize("is_chained", [False, True])
def test_after_an_e_stop_a_rate_limit_begins_at_rest(is_chained):
    bench = limited(replace(SETTINGS, use_estop=True), is_chained=is_chained)
    bench.logic.estop.hear(pressed=False, now=bench.now)
    bench.logic.reset(bench.now)
    full_speed(bench)
    bench.logic.estop.hear(pressed=True, now=bench.now)
    assert bench.tick(PERIOD).state is State.ESTOP
    bench.logic.estop.hear(pressed=False, now=bench.now)
    assert bench.logic.reset(bench.now) == ""
    assert action(command(bench, 1.0))[0] == pytest.approx(RATE * PERIOD)


@pytest.mark.parametrize("cause", ["observation", "budget", "inactive"])
def test_after_any_other_stop_it_begins_at_rest(cause):
    bench = limited()
    full_speed(bench)
    bench.see(0.0, 0.0, 0.0)
    if cause == "observation":
        bench.see(0.0, np.nan, 0.0)
    elif cause == "budget":
        bench.filter.answer = lambda _: None
    else:
        bench.logic.deactivate()
    assert action(bench.tick(PERIOD)) == [0.0, 0.0]
    bench.filter.answer = lambda decision: decision
    bench.logic.activate(bench.now)
    output = command(bench, 1.0)
    assert output.row is Row.DRIVE
    assert action(output)[0] == pytest.approx(RATE * PERIOD)


def test_many_answers_per_period_keep_the_rate():
    bench = limited()
    first = bench.now
    for _ in range(250):
        output = command(bench, 1.0, passed=PERIOD / 5.0)
    allowed = RATE * (bench.now - first) + RATE * PERIOD
    assert 0.9 * allowed < action(output)[0] <= allowed + 1e-6


def test_one_late_answer_moves_by_one_period_at_most():
    bench = limited()
    command(bench, 0.0)
    assert action(command(bench, 1.0, passed=7.0 * PERIOD))[0] == pytest.approx(RATE * PERIOD)


def test_a_new_memory_is_told_what_was_sent_last():
    bench = limited()
    full_speed(bench)
    fresh = RateLimit(SPEC, [RATE, RATE], rows=1)
    bench.filter.safeguard = fresh
    bench.logic.adopt([fresh])
    assert action(command(bench, 1.0))[0] == 1.0


def test_a_rate_limit_allows_the_time_that_it_was_told():
    limit, wish = RateLimit(SPEC, [RATE, RATE], rows=1), torch.ones(1, 2)
    for elapsed, share in ((-1.0, 0.0), (PERIOD / 4.0, 0.25), (PERIOD, 1.0), (9.0, 1.0)):
        limit.elapse(elapsed)
        moved = limit.filter(torch.zeros(1, 3), wish).action[0, 0]
        assert float(moved) == pytest.approx(share * RATE * PERIOD)

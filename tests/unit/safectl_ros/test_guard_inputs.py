"""Inputs that lie: finite outliers, clocks that go back, presses of the e-stop nobody waits for."""

import math
from dataclasses import replace

import numpy as np
import pytest

from safectl.spec import Signal
from safectl_ros.guard_inputs import EmergencyStop, Input
from safectl_ros.guard_logic import GuardLogic, Row, State
from safectl_ros.guard_settings import GuardSettings
from safectl_ros.robot_file import load_robot
from tests.unit.safectl_ros.guard_bench import (
    PERIOD,
    SETTINGS,
    Bench,
    action,
    driving,
)
from tests.unit.safectl_ros.robot_files import ARM, write

SIGNALS = (Signal("joint", "rad", -2.0, 2.0), Signal("way", "m", -math.inf, 1.0))


def make_input(timeout=0.2):
    return Input(2, timeout=timeout, stamp_tolerance=0.0, signals=SIGNALS)


@pytest.mark.parametrize("values", [(2.5, 0.0), (-1e6, 0.0), (0.0, 1.1)])
def test_an_observation_beyond_its_bounds_cannot_be_used(values):
    seen = make_input()
    seen.receive(np.array(values), 0.0)
    assert "which no robot within its bounds reports" in seen.fault(0.0)
    assert seen.values is None


@pytest.mark.parametrize("values", [(2.3, 0.0), (-2.3, -1e6)])
def test_noise_at_a_bound_and_signals_without_one_can_be_used(values):
    seen = make_input()
    seen.receive(np.array(values), 0.0)
    assert seen.fault(0.0) == ""


def test_what_comes_from_the_future_is_stale():
    seen = make_input()
    seen.receive(np.array([0.0, 0.0]), 100.0)
    assert seen.fault(100.1) == ""
    assert "old" in seen.fault(0.0), "the clock has gone back"
    seen.receive(np.array([0.0, 0.0]), 0.0)
    assert seen.fault(0.1) == ""
    assert seen.good_for(0.1) == pytest.approx(0.1)


def test_an_e_stop_that_was_heard_in_the_future_is_silent():
    estop = EmergencyStop(timeout=0.5, is_used=True)
    estop.hear(pressed=False, now=100.0)
    assert estop.cause(100.1) == ""
    assert "silent" in estop.cause(0.0)


def test_a_clock_that_goes_back_stops_until_messages_come_again():
    bench = driving(replace(SETTINGS, use_estop=False))
    bench.now -= 50.0
    assert bench.tick().row is Row.OBSERVATION
    assert action(bench.tick(0.5)) == [0.0, 0.0], "the ramp does not wait for the old time"
    assert bench.drive(PERIOD).row is Row.DRIVE


def test_a_press_while_inactive_needs_a_reset():
    bench = Bench(replace(SETTINGS, use_estop=True))
    bench.logic.estop.hear(pressed=False, now=bench.now)
    assert bench.logic.reset(bench.now) == ""
    bench.logic.deactivate()
    bench.logic.estop.hear(pressed=True, now=bench.now)
    bench.tick(PERIOD)
    bench.logic.estop.hear(pressed=False, now=bench.now)
    bench.logic.activate(bench.now)
    output = bench.drive(PERIOD)
    assert (output.state, output.reason) == (
        State.ESTOP,
        "e-stop: released, waiting for reset",
    )


def test_a_press_between_two_ticks_needs_a_reset():
    bench = Bench(replace(SETTINGS, use_estop=True))
    bench.logic.estop.hear(pressed=False, now=bench.now)
    bench.logic.reset(bench.now)
    assert bench.drive(PERIOD).state is State.NOMINAL
    bench.logic.estop.hear(pressed=True, now=bench.now)
    bench.logic.estop.hear(pressed=False, now=bench.now)
    assert bench.drive(PERIOD).state is State.ESTOP


def test_a_press_of_an_e_stop_that_is_not_used_does_nothing():
    estop = EmergencyStop(timeout=0.5, is_used=False)
    estop.hear(pressed=True, now=0.0)
    assert estop.check(0.0) == ""


@pytest.mark.parametrize("outlier", [2.3, -2.3, 5.0, 50.0, -1e6])
def test_one_outlier_of_the_speed_does_not_accelerate_a_stop(outlier):
    bench = Bench()
    for _ in range(50):
        bench.now += PERIOD
        bench.see(0.0, 0.1, 0.0)
        bench.command(0.1, 0.0)
        assert bench.tick().row is Row.DRIVE
    bench.see(0.0, outlier, 0.0)
    speeds = [action(bench.tick(PERIOD))[0] for _ in range(50)]
    assert max(map(abs, speeds)) <= 0.1 + 1e-6
    assert speeds[9 + 6 :] == [0.0] * len(speeds[15:]), "0.2 s of timeout, 0.1 s of ramp"


def test_a_stop_after_a_filtered_one_does_not_accelerate():
    bench = driving()
    bench.command(math.nan, 0.0)
    bench.filter.answer = lambda decision: decision._replace(action=0.1 * decision.action)
    bench.see()
    slow = action(bench.tick(PERIOD))[0]
    assert 0.0 < slow < 0.1
    bench.see(math.nan, 0.0, 0.0)
    assert 0.0 < action(bench.tick())[0] <= slow


def test_an_arm_with_an_outlier_of_its_velocity_holds_where_it_was(tmp_path):
    robot = load_robot(write(tmp_path, "arm.toml", ARM))
    settings = GuardSettings(use_estop=False, recover_s=0.0)
    logic = GuardLogic(robot.spec, settings, robot.stops, lambda *_: None)
    logic.activate(0.0)
    logic.observation.receive(np.array([0.5, 0.5, 0.0, 0.0]), 0.0)
    assert action(logic.tick(0.0)) == [0.5, 0.5]
    logic.observation.receive(np.array([0.5, 0.5, 50.0, 50.0]), PERIOD)
    output = logic.tick(PERIOD)
    assert output.reason.startswith("observation: has elbow_velocity at 50")
    assert [action(logic.tick(PERIOD + wait)) for wait in (0.1, 1.0, 9.0)] == [[0.5, 0.5]] * 3

"""Every row of the guard's decision table, without a clock and without ROS."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from safectl.errors import RangeError
from safectl.safeguards import Brake, Clip, StopProfile, decide_stop
from safectl.spec import Signal, Spec
from safectl_ros.guard_logic import GuardLogic, Row, State, Stop, StopProfiles
from safectl_ros.guard_settings import GuardSettings
from tests.unit.safectl_ros.guard_bench import (
    COMMAND,
    PERIOD,
    SETTINGS,
    SPEC,
    Bench,
    action,
    driving,
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- the rows, in their order


def test_an_inactive_guard_sends_zero(bench: Bench) -> None:
    bench.see()
    bench.command()
    bench.logic.deactivate()
    output = bench.tick()
    assert (output.state, output.row) == (State.INACTIVE, Row.INACTIVE)
    assert action(output) == [0.0, 0.0]


def test_an_e_stop_that_was_never_heard_stops() -> None:
    bench = Bench(GuardSettings())
    bench.see()
    bench.command()
    output = bench.tick()
    assert (output.state, output.row) == (State.ESTOP, Row.ESTOP)
    assert output.reason == "e-stop: none received yet"
    assert action(output) == [0.0, 0.0]


def test_a_pressed_e_stop_stops_at_once_and_stays_latched_until_the_reset() -> None:
    bench = Bench(GuardSettings(recover_s=0.0, min_dwell_s=0.0, reentry_s=1e-3))
    bench.logic.estop.hear(pressed=False, now=bench.now)
    assert bench.logic.reset(bench.now) == ""
    assert bench.drive(PERIOD).state is State.NOMINAL
    bench.logic.estop.hear(pressed=True, now=bench.now)
    assert bench.tick().state is State.ESTOP
    assert "pressed" in bench.logic.reset(bench.now)
    bench.logic.estop.hear(pressed=False, now=bench.now)
    output = bench.tick()
    assert (output.state, action(output)) == (State.ESTOP, [0.0, 0.0])
    assert output.reason == "e-stop: released, waiting for reset"
    assert bench.logic.reset(bench.now) == ""
    assert bench.drive(PERIOD).state is State.NOMINAL


def test_a_silent_e_stop_is_a_pressed_one() -> None:
    bench = Bench(GuardSettings(estop_timeout=0.5, cmd_timeout=9.0, state_timeout=9.0))
    bench.logic.estop.hear(pressed=False, now=bench.now)
    bench.logic.reset(bench.now)
    bench.see()
    bench.command()
    assert bench.tick(0.49).row is Row.DRIVE
    output = bench.tick(0.02)
    assert output.state is State.ESTOP
    assert output.reason == "e-stop: silent for 0.510 s"
    assert "silent" in bench.logic.reset(bench.now)


def test_an_observation_that_was_never_seen_stops(bench: Bench) -> None:
    bench.command()
    output = bench.tick()
    assert (output.state, output.row) == (State.STOP, Row.OBSERVATION)
    assert (output.reason, action(output)) == ("observation: none received yet", [0.0, 0.0])


def test_a_comfort_stop_begun_without_an_observation_rests_and_stays_at_rest(bench: Bench) -> None:
    for _ in range(3):
        assert action(bench.tick(0.02)) == [0.0, 0.0]
    bench.see(0.0, math.nan, 0.2)
    assert action(bench.tick(0.02)) == [0.0, 0.0]
    bench.command()
    output = bench.tick(0.3)
    assert (output.state, action(output)) == (State.STOP, [0.0, 0.0])
    assert bench.filter.proposals == []


def test_a_stale_observation_stops_on_the_ramp_from_the_last_good_one(bench: Bench) -> None:
    bench.see()
    bench.command()
    assert bench.tick().state is State.NOMINAL
    bench.command()
    output = bench.tick(0.21)
    assert (output.state, output.row) == (State.STOP, Row.OBSERVATION)
    assert output.reason == "observation: 0.210 s old, at most 0.2 s"
    assert action(output) == [0.38, 0.19]  # 1 m/s^2 from the measured 0.4 m/s, not from 0.5
    assert action(bench.tick(0.2)) == [0.18, 0.09]
    assert action(bench.tick(0.2)) == [0.0, 0.0]
    assert len(bench.filter.proposals) == 1


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 1e300])
def test_an_observation_that_is_not_finite_stops(bench: Bench, broken: float) -> None:
    bench.see()
    bench.command()
    bench.tick()
    bench.see(0.0, broken, 0.0)
    output = bench.tick()
    assert (output.state, output.reason) == (State.STOP, "observation: is not finite")
    assert action(output) == [0.38, 0.19]


@pytest.mark.parametrize(("stamp_age", "where"), [(0.6, "old"), (-0.6, "in the future")])
def test_an_implausible_stamp_stops(bench: Bench, stamp_age: float, where: str) -> None:
    bench.command()
    bench.see(stamp_age=stamp_age)
    output = bench.tick()
    assert (output.state, output.reason) == (
        State.STOP,
        f"observation: is stamped 0.600 s {where}",
    )


def test_a_tolerance_of_zero_switches_the_check_of_stamps_off() -> None:
    bench = Bench(GuardSettings(use_estop=False, recover_s=0.0, stamp_tolerance=0.0))
    bench.command(stamp_age=1e9)
    bench.see(stamp_age=-1e9)
    assert bench.tick().row is Row.DRIVE


def test_an_observation_of_the_wrong_size_or_that_cannot_be_read_stops(bench: Bench) -> None:
    bench.command()
    bench.see(0.0, 0.1)
    assert "shape (2,), expected (3,)" in bench.tick().reason
    bench.logic.observation.refuse("JointState: lacks the joint 'elbow'", bench.now)
    assert bench.tick().reason == "observation: JointState: lacks the joint 'elbow'"


def test_a_stale_command_leads_to_the_filtered_ramp(bench: Bench) -> None:
    bench.see()
    bench.command()
    bench.tick()
    bench.now += 0.21
    bench.see()
    output = bench.tick()
    assert (output.state, output.row) == (State.BACKUP, Row.COMMAND)
    assert output.reason == "command: 0.210 s old, at most 0.2 s"
    assert action(output) == [0.38, 0.19]
    torch.testing.assert_close(bench.filter.proposals[-1], torch.tensor([[0.38, 0.19]]))


def test_the_ramp_starts_once_although_the_measured_speed_lags_behind_it(bench: Bench) -> None:
    bench.see()
    bench.tick()
    for step in range(1, 5):
        bench.now += PERIOD
        bench.see()  # still at full speed
        assert action(bench.tick())[0] == pytest.approx(0.38 - 0.02 * step)


@pytest.mark.parametrize("broken", [(math.nan, 0.0), (0.0, math.inf), (0.1,), (0.1, 0.2, 0.3)])
def test_a_command_that_cannot_be_used_counts_as_lost_at_once(
    bench: Bench, broken: tuple[float, ...]
) -> None:
    bench.see()
    bench.command()
    assert bench.tick().state is State.NOMINAL
    bench.command(*broken)
    assert (bench.tick().state, bench.tick().row) == (State.BACKUP, Row.COMMAND)
    assert bench.drive(PERIOD).state is State.NOMINAL


def test_a_command_computed_from_an_old_state_is_refused(bench: Bench) -> None:
    bench.see()
    bench.command(stamp_age=0.51)
    output = bench.tick()
    assert output.reason == "command: is stamped 0.510 s old"
    assert output.state is State.BACKUP


def test_a_filter_over_its_budget_leads_to_the_ramp(bench: Bench) -> None:
    bench.see()
    bench.command()
    bench.filter.answer = lambda _: None
    output = bench.tick()
    assert (output.state, output.row) == (State.BACKUP, Row.BUDGET)
    assert output.reason == "filter: over its time budget, or failed"
    assert action(output) == [0.38, 0.19]
    assert action(bench.tick(PERIOD)) == [0.36, 0.18]


def test_a_filter_without_a_certified_action_sends_its_fallback(bench: Bench) -> None:
    bench.see()
    bench.command()
    inner = Clip(SPEC, fallback=Brake(SPEC, fixed=[0.1, 0.0]))
    bench.filter.answer = lambda _: inner.filter(torch.full((1, 3), torch.nan), torch.zeros(1, 2))
    output = bench.tick()
    assert (output.state, output.row) == (State.BACKUP, Row.INFEASIBLE)
    assert (output.reason, action(output)) == ("filter: no certified action", [0.1, 0.0])


@pytest.mark.parametrize("wrong", [5.0, math.nan, -math.inf])
def test_a_decision_beyond_the_limits_is_not_sent(bench: Bench, wrong: float) -> None:
    bench.see()
    bench.command()
    bench.filter.answer = lambda decision: decision._replace(action=torch.tensor([[wrong, 0.0]]))
    output = bench.tick()
    assert (output.state, output.row) == (State.BACKUP, Row.BUDGET)
    assert output.reason == "filter: decided an action beyond the limits"
    assert action(output) == [0.38, 0.19]


def test_a_decision_of_the_wrong_shape_is_not_sent(bench: Bench) -> None:
    bench.see()
    bench.command()
    bench.filter.answer = lambda decision: decision._replace(action=torch.zeros(1, 3))
    assert "shape (1, 3)" in bench.tick().reason


def test_a_kept_command_is_nominal_and_a_corrected_one_modified(bench: Bench) -> None:
    bench.see()
    bench.command(0.5, -0.4)
    output = bench.tick()
    assert (output.state, action(output)) == (State.NOMINAL, [0.5, -0.4])
    bench.command(1.5, -0.4)
    output = bench.tick()
    assert (output.state, action(output)) == (State.MODIFIED, [1.0, -0.4])


# --- which row comes first


def test_rows_match_in_their_order() -> None:
    bench = Bench(GuardSettings())
    bench.filter.answer = lambda _: None
    bench.logic.deactivate()
    assert bench.tick().row is Row.INACTIVE
    bench.logic.activate(bench.now)
    assert bench.tick().row is Row.ESTOP
    bench.logic.estop.hear(pressed=False, now=bench.now)
    bench.logic.reset(bench.now)
    assert bench.tick().row is Row.OBSERVATION
    bench = Bench()
    bench.filter.answer = lambda _: None
    bench.see()
    assert bench.tick().row is Row.COMMAND
    bench.command()
    assert bench.tick().row is Row.BUDGET


# --- recovery


def test_stop_ends_after_good_observations_for_long_enough() -> None:
    bench = Bench(GuardSettings(use_estop=False, recover_s=0.3, min_dwell_s=0.0))
    assert bench.tick().state is State.STOP
    rows = [bench.drive(PERIOD).row for _ in range(20)]
    waited = rows.index(Row.DRIVE)
    assert all(row is Row.OBSERVATION for row in rows[:waited])
    assert waited * PERIOD == pytest.approx(0.3, abs=2.0 * PERIOD)


def test_one_bad_observation_starts_the_recovery_again() -> None:
    bench = Bench(GuardSettings(use_estop=False, recover_s=0.3, min_dwell_s=0.0))
    bench.tick()
    bench.drive(0.2)
    bench.see(math.nan, 0.0, 0.0)
    bench.tick()
    assert bench.drive(0.2).state is State.STOP
    assert bench.drive(0.2).row is Row.DRIVE


def test_a_latched_stop_waits_for_a_reset_that_is_refused_while_its_cause_persists() -> None:
    bench = driving(GuardSettings(use_estop=False, recover_s=0.0, latch_stop=True))
    assert bench.tick(0.3).state is State.STOP
    assert "old" in bench.logic.reset(bench.now)
    output = bench.drive(1.0)
    assert (output.state, output.reason) == (
        State.STOP,
        "observation: good again, waiting for reset",
    )
    assert bench.logic.reset(bench.now) == ""
    assert bench.drive(PERIOD).row is Row.DRIVE


def test_a_bad_observation_between_two_ticks_is_latched_and_recovered_from() -> None:
    for latch in (False, True):
        settings = GuardSettings(
            use_estop=False, recover_s=0.1, min_dwell_s=0.0, latch_stop=latch, reentry_s=1e-3
        )
        bench = driving(settings)
        bench.see(math.nan, 0.0, 0.0)
        bench.see()
        assert bench.tick().row is Row.OBSERVATION
        rows = [bench.drive(PERIOD).row for _ in range(20)]
        assert rows[1] is Row.OBSERVATION
        assert rows[-1] is (Row.OBSERVATION if latch else Row.DRIVE)


def test_a_gap_of_observations_during_an_e_stop_is_recovered_from() -> None:
    for latch in (False, True):
        settings = GuardSettings(
            recover_s=0.1, min_dwell_s=0.0, estop_timeout=9.0, latch_stop=latch, reentry_s=1e-3
        )
        bench = Bench(settings)
        bench.logic.estop.hear(pressed=False, now=bench.now)
        assert bench.logic.reset(bench.now) == ""
        assert bench.drive(0.2).row is Row.DRIVE
        bench.logic.estop.hear(pressed=True, now=bench.now)
        for _ in range(100):
            assert bench.tick(PERIOD).row is Row.ESTOP  # and nothing is observed
        bench.logic.estop.hear(pressed=False, now=bench.now)
        bench.see()
        bench.command()
        assert bench.tick().row is Row.ESTOP
        if latch:
            assert bench.logic.standing
        bench.logic.estop.reset()  # what `reset` does, without taking the latch of the stop off
        assert bench.tick().row is Row.OBSERVATION
        assert bench.drive(0.3).row is (Row.OBSERVATION if latch else Row.DRIVE)


def held_up(seconds: float, *, is_steady: bool = True, **settings: float) -> Bench:
    """Return a guard that drove, was not served for a while, and then reads what waited."""
    bench = Bench(
        GuardSettings(
            recover_s=0.1, min_dwell_s=0.0, reentry_s=1e-3, estop_timeout=0.5, **settings
        ),
        is_steady=is_steady,
    )
    bench.logic.estop.hear(pressed=False, now=bench.now)
    assert bench.logic.reset(bench.now) == ""
    for _ in range(10):
        bench.logic.estop.hear(pressed=False, now=bench.now + PERIOD)
        assert bench.drive(PERIOD).row is not None
    assert bench.drive(PERIOD).row is Row.DRIVE
    bench.now += seconds
    bench.see()
    bench.command()
    bench.logic.estop.hear(pressed=False, now=bench.now)
    return bench


def test_what_waited_while_the_guard_was_held_up_is_not_fresh() -> None:
    bench = held_up(0.3)
    output = bench.tick()
    assert (output.row, output.state) == (Row.OBSERVATION, State.STOP)
    assert "the guard was held up for 0.2" in output.reason
    assert bench.drive(0.02).row is Row.OBSERVATION
    assert bench.drive(0.3).row is Row.DRIVE


def test_a_short_delay_of_a_tick_changes_nothing() -> None:
    bench = held_up(0.19)
    assert bench.tick().row is Row.DRIVE


def test_a_command_that_waited_longer_than_its_timeout_is_lost() -> None:
    bench = held_up(0.3, state_timeout=9.0)
    output = bench.tick()
    assert (output.row, output.state) == (Row.COMMAND, State.BACKUP)


def test_a_guard_that_was_held_up_for_longer_than_the_e_stop_may_be_silent_latches_it() -> None:
    bench = held_up(0.9)
    output = bench.tick()
    assert output.row is Row.ESTOP
    assert "the guard was held up for 0.88" in output.reason
    bench.logic.estop.hear(pressed=False, now=bench.now)
    assert bench.logic.reset(bench.now) == ""
    assert bench.drive(0.3).row is Row.DRIVE


def test_in_lock_step_ticks_come_with_the_commands() -> None:
    assert held_up(0.9, is_steady=False).tick().reason == "observation: good again, recovering"


def test_waiting_for_the_first_observation_is_not_latched() -> None:
    bench = Bench(GuardSettings(use_estop=False, recover_s=0.0, latch_stop=True, min_dwell_s=0.0))
    assert bench.tick().state is State.STOP
    assert bench.drive(PERIOD).row is Row.DRIVE


def test_disabling_stops_until_the_reset() -> None:
    bench = driving()
    bench.logic.disable("disabled by its service")
    output = bench.drive(1.0)
    assert (output.state, output.reason) == (State.STOP, "disabled by its service")
    assert action(output) == [0.0, 0.0]
    assert bench.logic.reset(bench.now) == ""
    assert bench.drive(PERIOD).row is Row.DRIVE


def test_backup_lasts_its_minimum_dwell() -> None:
    bench = driving(GuardSettings(use_estop=False, recover_s=0.0, min_dwell_s=0.2))
    bench.command(math.nan, 0.0)
    assert bench.tick().state is State.BACKUP
    rows = [bench.drive(PERIOD).row for _ in range(15)]
    assert rows.index(Row.DRIVE) * PERIOD == pytest.approx(0.2, abs=2.0 * PERIOD)


def test_a_source_that_is_barely_too_slow_does_not_switch_the_guard_at_every_message() -> None:
    bench = driving()
    changes = 0
    for tick in range(500):
        bench.now += PERIOD
        bench.see()
        if tick % 11 == 0:  # every 0.22 s, with a timeout of 0.2 s
            bench.command()
        changes += bench.logic.tick(bench.now).has_changed
    late = driving()
    assert changes <= 2 * math.ceil(500 / 11)
    late.command(stamp_age=0.0)
    late.now += 0.21
    late.see()
    assert late.tick().state is State.BACKUP
    late.command()
    late.now += 0.11  # younger than the timeout, older than half of it
    late.see()
    assert late.tick().state is State.BACKUP


def test_reentry_is_rate_limited_from_what_is_applied() -> None:
    bench = driving(GuardSettings(use_estop=False, recover_s=0.0, min_dwell_s=0.0, reentry_s=2.0))
    bench.command(math.nan, 0.0)
    for _ in range(40):
        bench.see(0.0, 0.0, 0.0)
        bench.tick(PERIOD)
    assert action(bench.tick()) == [0.0, 0.0]
    speeds, states = [], []
    for _ in range(30):
        output = bench.drive(PERIOD)
        speeds.append(action(output)[0])
        states.append(output.state)
    step = 2.0 * PERIOD / 2.0  # the range of 2 m/s within 2 s
    assert np.diff([0.0, *speeds]).max() <= step + 1e-6
    assert speeds[-1] == COMMAND[0]
    assert states[0] is State.MODIFIED
    assert states[-1] is State.NOMINAL


def test_after_the_reentry_a_command_may_jump_again() -> None:
    bench = driving(GuardSettings(use_estop=False, recover_s=0.0, reentry_s=0.5))
    bench.see()
    bench.command(-1.0, 0.0)
    assert action(bench.tick(PERIOD)) == [-1.0, 0.0]


def test_an_e_stop_or_a_deactivation_does_not_shorten_the_recovery() -> None:
    settings = GuardSettings(recover_s=0.5, min_dwell_s=0.0, estop_timeout=9.0)
    for interrupt in ("e-stop", "deactivation"):
        bench = Bench(settings)
        bench.logic.estop.hear(pressed=False, now=bench.now)
        bench.logic.reset(bench.now)
        bench.see(math.nan, 0.0, 0.0)
        assert bench.tick().row is Row.OBSERVATION
        if interrupt == "e-stop":
            bench.logic.estop.hear(pressed=True, now=bench.now)
            bench.tick(PERIOD)
            bench.logic.estop.hear(pressed=False, now=bench.now)
        else:
            bench.logic.deactivate()
            bench.tick(PERIOD)
            bench.logic.activate(bench.now)
        bench.see()
        assert bench.logic.reset(bench.now) == ""
        assert bench.drive(0.4).row is Row.OBSERVATION, interrupt
        assert bench.drive(0.2).row is Row.DRIVE, interrupt


def test_stop_lasts_its_minimum_dwell() -> None:
    bench = driving(GuardSettings(use_estop=False, recover_s=0.0, min_dwell_s=0.2))
    bench.see(math.nan, 0.0, 0.0)
    assert bench.tick().state is State.STOP
    rows = [bench.drive(PERIOD).row for _ in range(15)]
    assert rows.index(Row.DRIVE) * PERIOD == pytest.approx(0.2, abs=2.0 * PERIOD)


@pytest.mark.parametrize("wrong", [5.0, math.nan])
def test_a_backup_beyond_the_limits_is_not_sent(bench: Bench, wrong: float) -> None:
    bench.see()
    bench.filter.answer = lambda decision: decision._replace(action=torch.tensor([[wrong, 0.0]]))
    output = bench.tick()
    assert (output.state, action(output)) == (State.BACKUP, [0.38, 0.19])


def test_several_answers_per_period_do_not_shorten_the_reentry() -> None:
    bench = driving(GuardSettings(use_estop=False, recover_s=0.0, min_dwell_s=0.0, reentry_s=2.0))
    bench.logic.deactivate()
    assert action(bench.tick(PERIOD)) == [0.0, 0.0]
    bench.logic.activate(bench.now)
    for _ in range(50):
        bench.now += PERIOD / 5.0
        bench.see()
        bench.command()
        output = bench.tick()
    assert action(output)[0] == pytest.approx(2.0 / 2.0 * 50 * PERIOD / 5.0)


def test_an_infeasible_step_is_no_stop_after_which_a_command_is_approached() -> None:
    bench = driving(GuardSettings(use_estop=False, recover_s=0.0, reentry_s=0.5))
    bench.filter.answer = lambda _: Clip(SPEC).filter(
        torch.full((1, 3), torch.nan), torch.zeros(1, 2)
    )
    assert bench.drive(PERIOD).row is Row.INFEASIBLE
    bench.filter.answer = lambda decision: decision
    assert action(bench.drive(PERIOD)) == list(COMMAND)


def test_a_robot_is_not_stuck_at_once_when_the_guard_is_activated(bench: Bench) -> None:
    bench.filter.answer = lambda decision: decision._replace(action=torch.zeros(1, 2))
    bench.see()
    bench.command()
    assert bench.tick().row is Row.DRIVE
    assert not bench.is_stuck


# --- reports


def test_a_robot_that_is_commanded_to_move_and_rests_is_reported_as_stuck() -> None:
    bench = driving(GuardSettings(use_estop=False, stuck_s=1.0))
    bench.filter.answer = lambda _: Clip(SPEC).filter(
        torch.full((1, 3), torch.nan), torch.zeros(1, 2)
    )
    bench.drive(0.9)
    assert not bench.is_stuck
    bench.drive(0.2)
    assert bench.is_stuck
    bench.filter.answer = lambda decision: decision
    bench.drive(PERIOD)
    assert not bench.is_stuck


def test_a_robot_that_is_commanded_to_rest_is_not_stuck() -> None:
    bench = driving(GuardSettings(use_estop=False, stuck_s=0.1))
    for _ in range(20):
        bench.now += PERIOD
        bench.see()
        bench.command(0.0, 0.0)
        bench.tick()
        assert not bench.is_stuck


def test_changes_of_state_are_marked_once() -> None:
    bench = driving()
    bench.command(math.nan, 0.0)
    assert [bench.tick().has_changed for _ in range(3)] == [True, False, False]


def test_a_command_that_is_corrected_now_and_then_does_not_change_the_state_each_time() -> None:
    bench = driving(GuardSettings(use_estop=False, recover_s=0.0, min_dwell_s=0.1))
    changes, actions = 0, []
    for tick in range(60):
        bench.now += PERIOD
        bench.see()
        bench.command(2.0 if tick % 4 == 0 else 0.5, 0.0)
        output = bench.tick()
        changes += output.has_changed
        actions.append(action(output)[0])
    assert changes == 1
    assert actions[:5] == [1.0, 0.5, 0.5, 0.5, 1.0], "the state is held, not the action"
    assert bench.drive(0.3).state is State.NOMINAL


def test_new_times_hold_from_the_next_tick_on() -> None:
    bench = driving()
    bench.logic.change(GuardSettings(use_estop=False, cmd_timeout=0.05, recover_s=0.0))
    bench.now += 0.06
    bench.see()
    assert bench.tick().state is State.BACKUP


@pytest.mark.parametrize(
    "wrong", [{"cmd_timeout": 0.0}, {"reentry_s": -1.0}, {"recover_s": -0.1}, {"stuck_s": math.nan}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RangeError, match=next(iter(wrong))):
        GuardSettings(**wrong)  # type: ignore[arg-type]  # all of them are numbers


# --- robots that are commanded in positions, and accelerations


def test_a_position_robot_gets_nothing_before_it_was_seen_and_then_holds() -> None:
    spec = Spec(
        (Signal("joint", "rad", -3.0, 3.0), Signal("joint_velocity", "rad/s", -2.0, 2.0)),
        (Signal("joint", "rad", -3.0, 3.0),),
        PERIOD,
    )

    def profile(deceleration: float) -> Stop:
        inner = StopProfile(
            spec, velocities=(1,), positions=(0,), deceleration=[deceleration], command="position"
        )
        return partial(decide_stop, inner)

    stops = StopProfiles(profile(1.0), profile(math.inf), needs_observation=True)
    logic = GuardLogic(spec, SETTINGS, stops, Clip(spec).filter)
    assert logic.tick(0.0).decision is None
    logic.observation.receive(np.array([0.7, 0.5]), 0.0)
    output = logic.tick(0.0)
    assert output.state is State.INACTIVE
    assert action(output) == [0.7]
    logic.activate(0.1)
    logic.tick(0.1)
    assert action(logic.tick(0.7)) == [0.7 + 0.5**2 / 2.0]  # the ramp has ended


def test_a_position_robot_that_was_moved_during_an_e_stop_starts_from_where_it_is() -> None:
    spec = Spec(
        (Signal("joint", "rad", -3.0, 3.0), Signal("joint_velocity", "rad/s", -2.0, 2.0)),
        (Signal("joint", "rad", -3.0, 3.0),),
        PERIOD,
    )
    profile = StopProfile(
        spec, velocities=(1,), positions=(0,), deceleration=[1.0], command="position"
    )
    stops = StopProfiles(*[partial(decide_stop, profile)] * 2, needs_observation=True)
    logic = GuardLogic(spec, GuardSettings(recover_s=0.0, reentry_s=2.0), stops, Clip(spec).filter)
    logic.activate(0.0)
    logic.observation.receive(np.array([0.7, 0.0]), 0.0)
    assert action(logic.tick(0.0)) == [0.7]
    logic.observation.receive(np.array([-0.5, 0.0]), 0.1)  # it sagged
    logic.command.receive(np.array([0.7]), 0.1)
    logic.estop.hear(pressed=False, now=0.1)
    assert logic.reset(0.1) == ""
    step = 6.0 * PERIOD / 2.0
    assert action(logic.tick(0.1 + PERIOD)) == pytest.approx([-0.5 + step])


def test_accelerations_brake_from_the_newest_measurement() -> None:
    spec = Spec(
        (Signal("position", "m", -9.0, 9.0), Signal("velocity", "m/s", -9.0, 9.0)),
        (Signal("acceleration", "m/s^2", -1.0, 1.0),),
        0.1,
    )

    def profile(deceleration: float) -> Stop:
        inner = StopProfile(
            spec, velocities=(1,), deceleration=[deceleration], command="acceleration"
        )
        return partial(decide_stop, inner)

    stops = StopProfiles(profile(0.5), profile(math.inf), is_closed_loop=True)
    logic = GuardLogic(spec, SETTINGS, stops, Clip(spec).filter)
    logic.activate(0.0)
    logic.observation.receive(np.array([0.0, 1.0]), 0.0)
    assert action(logic.tick(0.0)) == [-0.5]
    logic.observation.receive(np.array([0.0, 0.02]), 0.1)
    assert action(logic.tick(0.1)) == [-0.2]
    assert action(logic.tick(0.15)) == [0.0], "braked for longer than the rest of its speed lasts"

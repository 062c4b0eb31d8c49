"""Faults between processes, and the time until the robot is told to rest.

The measured times are printed (`pytest -s`) and recorded as a property of each test.
"""

import math
import os
import signal
import sys
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from safectl_ros.adapters.stamps import to_time
from safectl_ros.bench.fuzz import fuzz
from safectl_ros.bench.graph import loopback_graph
from safectl_ros.qos import COMMAND, DIAGNOSTICS, SENSOR, STATE
from tests.ros.fault_site import NEAR, PERIOD_S, Site, end, silent, start
from tests.ros_graph import Inbox
from tests.unit.safectl_ros.robot_files import ARM, BASE, write
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

TIMEOUT_S = 0.2
"""Configured age of a stale command and of a stale observation."""

ESTOP_TIMEOUT_S = 0.5
TWO_PERIODS_S = 2.0 * PERIOD_S

LATE_S = 0.1
"""What a loaded machine may add: the processes share two cores with whatever else runs."""

START_S = 90.0
AT_ONCE = {"recover_s": 0.0, "min_dwell_s": 0.0, "reentry_s": 0.001, "filter_budget_s": 0.1}


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    """A base that stops within a period from 0.4 m/s."""
    text = BASE.replace("deceleration = [5.0, 10.0]", "deceleration = [50.0, 100.0]")
    return write(tmp_path_factory.mktemp("robot"), "robot.toml", text)


@pytest.fixture(scope="module")
def guard(ros_domain, tmp_path_factory, robot):
    """A guard as a process."""
    folder = tmp_path_factory.mktemp("safeguard")
    process = start(
        "guard",
        robot=robot,
        safeguard=write(folder, "safeguard.toml", "kind = 'clip'"),
        cmd_timeout=TIMEOUT_S,
        state_timeout=TIMEOUT_S,
        estop_timeout=ESTOP_TIMEOUT_S,
        **AT_ONCE,
    )
    yield process
    end(process)


@pytest.fixture
def site(probe, guard):
    """A site whose guard drives."""
    here = Site(probe.node)
    client = probe.node.create_client(Trigger, "guard/reset")
    assert client.wait_for_service(START_S)
    wait_until(lambda: here.estop.get_subscription_count() == 1)
    wait_until(lambda: probe.call(client, Trigger.Request(), 15.0).success, poll_s=0.05)
    here.wait_for_drive()
    return here


@pytest.fixture
def measured(record_property, request):
    """Return what notes a time and holds it against its limit."""

    def note(seconds, limit_s):
        record_property("seconds_to_safe_output", round(seconds, 4))
        figure = f"{1e3 * seconds:.1f} ms, limit {1e3 * limit_s:.0f} ms"
        sys.stdout.write(f"{request.node.name}: {figure}\n")
        assert seconds <= limit_s + LATE_S

    return note


def mute(site, source):
    return lambda: setattr(site, source, silent)


def replace(site, source, **arguments):
    good = {"see": site.good_odometry, "command": site.good_command, "beat": site.heartbeat}
    return lambda: setattr(site, source, lambda: good[source](**arguments))


# --- what arrives is wrong


def test_silent_commands(site, measured):
    measured(site.seconds_to_rest(mute(site, "command")), TIMEOUT_S + TWO_PERIODS_S)


def test_silent_odometry(site, measured):
    measured(site.seconds_to_rest(mute(site, "see")), TIMEOUT_S + TWO_PERIODS_S)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_command_that_is_not_finite(site, measured, value):
    seconds = site.seconds_to_rest(replace(site, "command", speed=value))
    measured(seconds, PERIOD_S + TWO_PERIODS_S)  # the next command is up to a period away


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_odometry_that_is_not_finite(site, measured, value):
    measured(site.seconds_to_rest(replace(site, "see", speed=value)), PERIOD_S + TWO_PERIODS_S)


def test_odometry_of_another_frame(site, measured):
    measured(site.seconds_to_rest(replace(site, "see", frame="mars")), PERIOD_S + TWO_PERIODS_S)


@pytest.mark.parametrize("source", ["command", "see"])
def test_stale_stamps(site, measured, source):
    seconds = site.seconds_to_rest(replace(site, source, stamp=to_time(1)))
    measured(seconds, PERIOD_S + TWO_PERIODS_S)


def test_a_pressed_e_stop(site, measured):
    measured(site.seconds_to_rest(replace(site, "beat", pressed=True)), PERIOD_S + TWO_PERIODS_S)


def test_a_press_is_heard_by_a_guard_that_was_held_up(site, guard):
    """More heartbeats follow it, while the guard cannot read, than the sender's queue holds."""

    def press():
        os.kill(guard.pid, signal.SIGSTOP)
        for pressed in (True, *[False] * 30):
            site.heartbeat(pressed=pressed)
        os.kill(guard.pid, signal.SIGCONT)

    site.seconds_to_rest(press)
    seen = len(site.outputs)
    wait_until(lambda: len(site.outputs) > seen + 25)
    assert all(abs(row[1]) <= NEAR for row in site.outputs[seen + 5 :]), "it went on"


def test_a_silent_e_stop(site, measured):
    measured(site.seconds_to_rest(mute(site, "beat")), ESTOP_TIMEOUT_S + TWO_PERIODS_S)


@pytest.mark.parametrize("jump", [100.0, -100.0])
def test_a_jump_of_the_clock(ros_domain, probe, robot, tmp_path, measured, jump):
    """Stamps of the wall clock, and a guard whose clock leaves it."""
    process = start(
        "guard",
        "__node:=clocked_guard",
        "cmd_vel_safe:=clocked_safe",
        robot=robot,
        safeguard=write(tmp_path, "clip.toml", "kind = 'clip'"),
        use_estop="false",
        use_sim_time="true",
        **AT_ONCE,
    )
    clock = probe.node.create_publisher(Clock, "/clock", DIAGNOSTICS)
    shift = [0.0]

    def tell():
        seconds = time.time() + shift[0]
        clock.publish(Clock(clock=to_time(int(seconds * 1e9))))

    try:
        probe.node.create_timer(0.01, tell)
        site = Site(probe.node, safe_topic="clocked_safe")
        seconds = site.seconds_to_rest(lambda: shift.__setitem__(0, jump))
        measured(seconds, PERIOD_S + TWO_PERIODS_S)
    finally:
        end(process)


def test_joints_of_another_arm(ros_domain, probe, tmp_path, measured):
    """An arm that is commanded positions holds where it is."""
    process = start(
        "guard",
        "__node:=arm_guard",
        robot=write(tmp_path, "arm.toml", ARM.replace("[4.0, 4.0]", "[200.0, 200.0]")),
        safeguard=write(tmp_path, "clip.toml", "kind = 'clip'"),
        use_estop="false",
        **AT_ONCE,
    )
    try:
        node, joints = probe.node, ["elbow", "wrist"]
        states = node.create_publisher(JointState, "joint_states", SENSOR)
        commands = node.create_publisher(JointTrajectory, "joint_command", COMMAND)
        arrivals = []

        def arrived(message):
            arrivals.append((time.monotonic(), list(message.points[0].positions)))

        node.create_subscription(JointTrajectory, "joint_command_safe", arrived, COMMAND)

        def publish():
            state = JointState(name=joints, position=[0.3, -0.2], velocity=[0.0, 0.0])
            stamp = state.header.stamp = node.get_clock().now().to_msg()
            states.publish(state)
            point = JointTrajectoryPoint(positions=[0.5, 0.5])
            command = JointTrajectory(joint_names=list(joints_sent), points=[point])
            command.header.stamp = stamp
            commands.publish(command)

        joints_sent = joints
        node.create_timer(PERIOD_S, publish)
        wait_until(lambda: arrivals and arrivals[-1][1] == [0.5, 0.5], timeout_s=START_S)
        started = time.monotonic()
        joints_sent = ["elbow", "ankle"]

        def holding():
            after = [at for at, row in arrivals if at > started and np.allclose(row, [0.3, -0.2])]
            return min(after, default=None)

        wait_until(holding)
        measured(holding() - started, PERIOD_S + TWO_PERIODS_S)
    finally:
        end(process)


# --- who sends is gone


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_policy_that_dies_or_hangs(site, robot, tmp_path, measured, number):
    policy = write(tmp_path, "policy.toml", "kind = 'constant'\naction = [0.5, -0.4]")
    site.command = silent
    process = start("policy", robot=robot, policy=policy)
    try:
        wait_until(lambda: site.outputs[-1][1] < 0.1)
        seconds = site.seconds_to_rest(lambda: os.kill(process.pid, number))
    finally:
        end(process)
    measured(seconds, TIMEOUT_S + TWO_PERIODS_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_planner_that_dies_or_hangs(site, robot, tmp_path, measured, number):
    text = "kind = 'pursuit'\ngoal = [3.0, -1.0]\nhorizon = 10"
    site.command = silent
    planner = write(tmp_path, "planner.toml", text)
    process = start("planner", robot=robot, planner=planner, rate_hz=50.0)
    try:
        wait_until(lambda: site.outputs[-1][1] < 0.1)
        seconds = site.seconds_to_rest(lambda: os.kill(process.pid, number))
    finally:
        end(process)
    measured(seconds, TIMEOUT_S + TWO_PERIODS_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_guard_that_dies_or_hangs_is_noticed_by_the_last_link(
    ros_domain, probe, tmp_path, measured, number
):
    """The simulator, which plays the driver, stops by the deadline that it asks for."""
    rate_hz, step_s = 20.0, 0.05
    env, files = "safectl/PointHazard-v0", {}
    files["safeguard"] = write(tmp_path, "clip.toml", "kind = 'clip'")
    files["policy"] = write(tmp_path, "policy.toml", "kind = 'constant'\naction = [0.5, 0.5]")
    common = {"robot": env}
    processes = [
        start("sim", env_id=env, command_rate_hz=rate_hz),
        start("policy", "__node:=driver", policy=files["policy"], use_sim_time="true", **common),
    ]
    guarding = start(
        "guard",
        "__node:=sim_guard",
        safeguard=files["safeguard"],
        use_estop="false",
        use_sim_time="true",
        **common,
        **AT_ONCE,
    )
    processes.append(guarding)
    moves = []

    def on_state(message):
        row = np.array(message.data[:3])
        if (moves and not np.array_equal(row, moves[-1][1])) or not moves:
            moves.append((time.monotonic(), row))

    probe.node.create_subscription(Float64MultiArray, "model_state", on_state, STATE)
    try:
        wait_until(lambda: len(moves) > 20, timeout_s=START_S)
        started = time.monotonic()
        os.kill(guarding.pid, number)
        wait_until(lambda: time.monotonic() - moves[-1][0] > 1.0)
        measured(moves[-1][0] - started, 3.0 / rate_hz + 2.0 * step_s)
    finally:
        for process in processes:
            end(process)


# --- who should not be there


def alarm(probe, text):
    """Return what waits for an ERROR in the diagnostics that contains a text."""
    reports = Inbox(probe.node, DiagnosticArray, "/diagnostics", DIAGNOSTICS)

    def raised(messages):
        return any(
            status.level == DiagnosticStatus.ERROR and text in status.message
            for message in messages
            for status in message.status
        )

    return lambda: reports.wait(raised)


def test_a_second_publisher_is_reported(site, probe, measured):
    wait = alarm(probe, "2 publishers")
    started = time.monotonic()
    probe.node.create_publisher(TwistStamped, "cmd_vel_safe", COMMAND)
    wait()
    measured(time.monotonic() - started, 1.0 + PERIOD_S)  # looked for once a second


def test_a_planner_with_another_quality_of_service_is_reported(site, probe, measured):
    wait = alarm(probe, "cmd_vel: incompatible RELIABILITY")
    started = time.monotonic()
    probe.node.create_publisher(TwistStamped, "cmd_vel", SENSOR)
    wait()
    measured(time.monotonic() - started, 1.0)


# --- everything at once


def test_ten_thousand_random_messages_lead_to_no_unsafe_output():
    with loopback_graph():  # no other guard is there
        report = fuzz(messages=10_000, seed=0)
    assert report.binding > 10, "the barrier has decided"
    sys.stdout.write(f"{report}\n")
    assert report.unsafe == 0
    assert report.messages >= 10_000
    assert report.outputs > 500
    assert report.moving > 50, "the guard let nothing through"

"""The simulator node: the last link, which must stop by itself."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Log
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from safectl.errors import ConfigError
from safectl_ros.adapters.stamps import from_time
from safectl_ros.adapters.vector import label_stamp, numbers_to_message
from safectl_ros.diagnostics import ERROR, OK, WARN
from safectl_ros.qos import DIAGNOSTICS, LATCHED, SENSOR, STATE, safe_command
from tests.ros_graph import DISCOVERY_S, Inbox
from tests.waiting import wait_until

LOGS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # as rclpy offers them
RATE_HZ = 10.0
DEADLINE_S = 3.0 / RATE_HZ
LATE_S = 2.0  # a loaded machine may serve a callback this late
DOCUMENT = Path(__file__).parents[3] / "docs" / "ros.md"
POINT = "safectl/PointHazard-v0"

# Drives like a guard at RATE_HZ until it is killed. It imports nothing of ours, to start at once.
DRIVER = """
import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64MultiArray

rclpy.init()
node = Node("driver")
offer = QoSProfile(depth=1, deadline=Duration(seconds=0.3))
publisher = node.create_publisher(Float64MultiArray, "action_safe", offer)
node.create_timer(0.05, lambda: publisher.publish(Float64MultiArray(data=[1.0, 0.0])))
rclpy.spin(node)
"""


def speed(messages):
    return messages[-1].data[0] if messages else None


def command(*values, stamp_ns=0):
    return numbers_to_message(np.array(values, dtype=float), stamp_ns)


def publish_until(publisher, message, holds):
    """Repeat a command, as a guard does, until something holds."""
    wait_until(lambda: publisher.publish(message) or holds(), poll_s=0.02)


@pytest.fixture
def point(simulator, probe):
    """A point robot in real time; returns its observations and a publisher that may drive it."""
    simulator(POINT, mode="realtime", command_rate_hz=RATE_HZ)
    observations = Inbox(probe.node, Float64MultiArray, "observation", SENSOR)
    publisher = probe.node.create_publisher(Float64MultiArray, "action_safe", safe_command(RATE_HZ))
    observations.wait()
    wait_until(lambda: publisher.get_subscription_count() > 0)
    return observations, publisher


def test_in_real_time_state_and_clock_go_on_by_one_period(simulator, probe):
    simulator(POINT, mode="realtime", rate_factor=4.0)
    observations = Inbox(probe.node, Float64MultiArray, "observation", STATE)
    clocks = Inbox(probe.node, Clock, "/clock", STATE)
    observations.wait(lambda messages: len(messages) > 10)
    clocks.wait(lambda messages: len(messages) > 10)
    stamps = [label_stamp(message) for message in observations.messages]
    assert set(np.diff(stamps)) == {50_000_000}
    assert set(np.diff([from_time(message.clock) for message in clocks.messages])) == {50_000_000}


def test_silence_stops_the_robot_after_the_deadline(point):
    observations, publisher = point
    publish_until(publisher, command(1.0, 0.0), lambda: speed(observations.messages) == 1.0)
    silent = time.monotonic()
    observations.wait(lambda messages: speed(messages) == 0.0)
    assert time.monotonic() - silent < DEADLINE_S + LATE_S


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_robot_stops_when_its_driver_dies_or_hangs(point, number):
    observations, _ = point
    driver = subprocess.Popen([sys.executable, "-c", DRIVER])
    try:
        observations.wait(lambda messages: speed(messages) == 1.0)
        os.kill(driver.pid, number)
        died = time.monotonic()
        observations.wait(lambda messages: speed(messages) == 0.0)
        assert time.monotonic() - died < DEADLINE_S + LATE_S
    finally:
        driver.kill()
        driver.wait()


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (command(np.nan, 0.0), "not finite"),
        (command(0.0, np.inf), "not finite"),
        (command(1.0), "holds 1 numbers, expected 2"),
        (command(1.0, 0.0, 0.0), "holds 3 numbers, expected 2"),
    ],
)
def test_a_command_that_cannot_be_followed_stops_the_robot(point, probe, refused, reason):
    observations, publisher = point
    log = Inbox(probe.node, Log, "/rosout", LOGS)
    wait_until(lambda: probe.node.count_publishers("/rosout") > 1)
    publish_until(publisher, command(1.0, 0.0), lambda: speed(observations.messages) == 1.0)
    publisher.publish(refused)
    observations.wait(lambda messages: speed(messages) == 0.0)
    log.wait(lambda messages: any(reason in message.msg for message in messages))


def test_its_report_says_whether_the_robot_follows_and_why_not(point, probe):
    _, publisher = point
    reports = Inbox(probe.node, DiagnosticArray, "/diagnostics", DIAGNOSTICS)

    def says(level, words):
        def holds(messages):
            status = messages[-1].status[0]
            return status and status.level == level and words in status.message

        reports.wait(holds)

    says(WARN, "stopped: no command yet")
    publish_until(publisher, command(1.0, 0.0), lambda: reports.messages[-1].status[0].level == OK)
    publisher.publish(command(np.nan, 0.0))
    says(ERROR, "stopped: refused: the command is not finite")
    status = reports.messages[-1].status[0]
    assert (status.name, status.hardware_id) == ("sim: robot", POINT)
    assert {pair.key: pair.value for pair in status.values}["refused_commands"] == "1"


def test_a_publisher_that_offers_no_deadline_does_not_drive_and_is_named(simulator, probe):
    log = Inbox(probe.node, Log, "/rosout", LOGS)
    simulator(POINT, mode="realtime", rate_factor=10.0)
    observations = Inbox(probe.node, Float64MultiArray, "observation", SENSOR)
    publisher = probe.node.create_publisher(Float64MultiArray, "action_safe", 1)
    log.wait(lambda messages: any("must offer a deadline" in m.msg for m in messages))
    publisher.publish(command(1.0, 0.0))
    seen = len(observations.messages)
    observations.wait(lambda messages: len(messages) > seen + 10)
    assert publisher.get_subscription_count() == 0
    assert all(message.data[0] == 0.0 for message in observations.messages)


def test_in_lock_step_each_stamp_is_answered_once_and_a_late_node_hears_the_state(simulator, probe):
    simulator(POINT)
    publisher = probe.node.create_publisher(Float64MultiArray, "action_safe", safe_command(RATE_HZ))
    observations = Inbox(probe.node, Float64MultiArray, "observation", STATE)
    first = label_stamp(observations.wait())
    wait_until(lambda: publisher.get_subscription_count() > 0)
    for _ in range(5):
        publisher.publish(command(1.0, 0.0, stamp_ns=first))
    newest = observations.wait(lambda messages: label_stamp(messages[-1]) > first)
    seen = len(observations.messages)
    observations.wait(lambda messages: len(messages) > seen + 1)  # repeated, not stepped
    assert label_stamp(observations.messages[-1]) == label_stamp(newest) == first + 50_000_000


def test_the_step_after_the_end_of_an_episode_is_a_restart(simulator, probe):
    simulator("Pendulum-v1", env_kwargs="'{max_episode_steps: 2}'")
    publisher = probe.node.create_publisher(Float64MultiArray, "action_safe", safe_command(RATE_HZ))
    observations = Inbox(probe.node, Float64MultiArray, "observation", STATE)
    outcomes = Inbox(probe.node, Float64MultiArray, "sim/outcome", QoSProfile(depth=10))
    stamp_ns = label_stamp(observations.wait())
    wait_until(lambda: publisher.get_subscription_count() > 0)
    wait_until(lambda: probe.node.count_publishers("sim/outcome") > 0)
    for _ in range(4):
        publisher.publish(command(0.0, stamp_ns=stamp_ns))
        before = stamp_ns
        stamp_ns = label_stamp(
            observations.wait(lambda messages, old=before: label_stamp(messages[-1]) > old)
        )
    ended = [
        message.data[3] for message in outcomes.wait(lambda m: len(m) > 2) and outcomes.messages
    ]
    assert ended == [0.0, 1.0, 0.0]


def test_violations_are_counted_by_the_simulator_and_kept_for_late_readers(simulator, probe):
    thread = simulator("safectl/SpeedLimit-v0", mode="realtime", rate_factor=20.0)
    size = thread.node.robot.interface.spec.nu
    publisher = probe.node.create_publisher(
        Float64MultiArray, "action_safe", safe_command(RATE_HZ * 2.0)
    )
    wait_until(lambda: publisher.get_subscription_count() > 0)
    robot = thread.node.robot
    publish_until(publisher, command(*[1.0] * size), lambda: robot.violations > 5)
    late = Inbox(probe.node, Float64MultiArray, "sim/violation", LATCHED)
    late.wait(lambda messages: messages[-1].data[1] == thread.node.robot.violations)
    assert late.messages[-1].data[0] == 1.0


def test_the_documented_topics_are_those_of_the_node(simulator, probe):
    simulator(POINT, kind="base")
    text = DOCUMENT.read_text().partition("### sim_node")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `([a-z_/]+)` \| `([A-Za-z_0-9/]+)` \| out \|", text, re.MULTILINE)
    documented = {f"/{topic}": [kind] for topic, kind in rows}
    wait_until(lambda: "sim" in probe.node.get_node_names())
    wait_until(lambda: published(probe) == documented | {"/odom": ["nav_msgs/msg/Odometry"]})


def published(probe):
    """Return type by topic of what the simulator publishes, without what every node publishes."""
    topics = dict(probe.node.get_publisher_names_and_types_by_node("sim", "/"))
    return {k: v for k, v in topics.items() if k not in ("/rosout", "/parameter_events")}


def test_a_base_speaks_twist_and_odometry(simulator, probe):
    simulator(POINT, kind="base", mode="realtime", command_rate_hz=RATE_HZ)
    publisher = probe.node.create_publisher(TwistStamped, "cmd_vel_safe", safe_command(RATE_HZ))
    odometry = Inbox(probe.node, Odometry, "odom", SENSOR)
    wait_until(lambda: publisher.get_subscription_count() > 0)
    message = TwistStamped()
    message.twist.angular.z = 2.0
    odometry.wait()
    publish_until(publisher, message, lambda: odometry.messages[-1].twist.twist.angular.z == 2.0)
    assert odometry.messages[-1].header.frame_id == "odom"


def test_a_reset_with_the_same_seed_is_the_same_episode(simulator, probe):
    thread = simulator(POINT, seed=5)
    first = thread.node.robot.observation
    client = probe.node.create_client(Trigger, "sim/reset")
    probe.call(client, Trigger.Request(), DISCOVERY_S)
    assert (thread.node.robot.observation != first).any()
    thread.node.set_parameters([Parameter("seed", value=5)])
    answer = probe.call(client, Trigger.Request(), DISCOVERY_S)
    np.testing.assert_array_equal(thread.node.robot.observation, first)
    assert int(answer.message) == thread.node.robot.stamp_ns
    (refused,) = thread.node.set_parameters([Parameter("seed", value=-2)])
    assert not refused.successful


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"env_id": "Nothing-v0"}, "cannot be made"),
        ({"rate_factor": 0.0}, "rate_factor"),
        ({"mode": "lock"}, "mode"),
        ({"speed": 1.0}, "unknown parameter 'speed'"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_one_clear_error(simulator, parameters, problem):
    with pytest.raises(ConfigError, match=problem):
        simulator(**{"env_id": POINT} | parameters)

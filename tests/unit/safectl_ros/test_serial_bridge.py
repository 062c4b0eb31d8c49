"""The serial bridge node against a fake board on a pseudo-terminal: the last link must stop it."""

import threading
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64MultiArray

from safectl.errors import BridgeError, ConfigError
from safectl_hardware.board import load_board
from safectl_hardware.fake_board import FakeBoard
from safectl_hardware.firmware import build_robot
from safectl_hardware.serial import SerialBridge
from safectl_hardware.virtual import VirtualBoard
from safectl_ros.adapters.vector import numbers_to_message
from safectl_ros.nodes.serial_bridge import SerialBridgeNode
from safectl_ros.process import RosThread
from safectl_ros.qos import DIAGNOSTICS, SENSOR, safe_command
from safectl_ros.robot_file import load_robot
from tests.ros_graph import DISCOVERY_S, Inbox
from tests.waiting import wait_until

RATE_HZ = 10.0
PERIOD_S = 0.1
ROBOT = f"""
period = {PERIOD_S}
observation = [
  {{name = "x", unit = "m", low = -9.0, high = 9.0}},
  {{name = "y", unit = "m", low = -9.0, high = 9.0}},
]
action = [
  {{name = "u", unit = "m/s", low = -1.0, high = 1.0}},
  {{name = "v", unit = "m/s", low = -1.0, high = 1.0}},
]
"""


@pytest.fixture
def robot_file(tmp_path):
    path = tmp_path / "robot.toml"
    path.write_text(ROBOT)
    return path


@pytest.fixture
def board(robot_file):
    with FakeBoard(load_robot(str(robot_file)).spec) as board:
        yield board


@pytest.fixture
def bridge(ros_domain, robot_file):
    """Return a function that starts the node on a port."""
    threads = []

    def start(port):
        words = {"robot": robot_file, "port": port, "command_rate_hz": RATE_HZ}
        arguments = ["--ros-args"]
        for name, value in words.items():
            arguments += ["-p", f"{name}:={value}"]
        threads.append(RosThread(lambda context: SerialBridgeNode(context), arguments=arguments))
        return threads[-1]

    yield start
    for thread in threads:
        thread.close()


def command(*values):
    return numbers_to_message(np.array(values, dtype=float), 0)


def says(words):
    return lambda reports: reports and words in reports[-1].status[0].message


def drive(publisher, holds, *values):
    """Publish a command at the promised rate until something holds."""

    def tick():
        publisher.publish(command(*values))
        return holds()

    wait_until(tick, poll_s=PERIOD_S / 2.0)


@pytest.fixture
def publisher(probe):
    return probe.node.create_publisher(Float64MultiArray, "action_safe", safe_command(RATE_HZ))


def test_states_are_published_and_commands_reach_the_board_within_its_limits(
    board, bridge, probe, publisher
):
    states = Inbox(probe.node, Float64MultiArray, "observation", SENSOR)
    bridge(board.port)
    assert list(states.wait().data) == [0.0, 0.0]
    drive(publisher, lambda: (1.0, -0.5) in board.commands, 7.0, -0.5)
    states.wait(lambda messages: messages[-1].data[0] > 0.0 > messages[-1].data[1])


def test_silence_stops_the_board_and_a_new_command_starts_it_again(board, bridge, probe, publisher):
    reports = Inbox(probe.node, DiagnosticArray, "/diagnostics", DIAGNOSTICS)
    bridge(board.port)
    drive(publisher, lambda: board.is_running, 1.0, 0.0)
    silent = time.monotonic()
    wait_until(lambda: not board.is_running)
    assert time.monotonic() - silent < DISCOVERY_S
    wait_until(lambda: board.stops > 0)
    reports.wait(says("no command for"))
    count = len(board.commands)
    drive(publisher, lambda: len(board.commands) > count, 0.5, 0.0)
    assert board.commands[-1] == (0.5, 0.0)


@pytest.mark.parametrize("refused", [command(float("nan"), 0.0), command(1.0)])
def test_a_refused_command_stops_the_board(board, bridge, publisher, refused):
    bridge(board.port)
    drive(publisher, lambda: board.is_running, 1.0, 0.0)
    publisher.publish(refused)
    wait_until(lambda: board.stops > 0)
    wait_until(lambda: not board.is_running)


def test_what_was_commanded_before_the_board_was_there_is_not_followed(
    board, bridge, probe, publisher, monkeypatch
):
    """The board boots; commands come at the promised rate until it is about to be there."""
    enter, attempts, is_silent = SerialBridge.__enter__, [], threading.Event()

    def boot(serial):
        attempts.append(time.monotonic())
        if len(attempts) == 1:
            raise BridgeError("the board is not there yet")
        if len(attempts) == 2:
            time.sleep(0.5)
            is_silent.set()
            time.sleep(PERIOD_S)  # less than the deadline: its event does not stop the link
        return enter(serial)

    monkeypatch.setattr(SerialBridge, "__enter__", boot)

    def tick():
        if not is_silent.is_set():
            publisher.publish(command(0.5, 0.5))

    states = Inbox(probe.node, Float64MultiArray, "observation", SENSOR)
    timer = probe.node.create_timer(PERIOD_S / 2.0, tick)
    bridge(board.port)
    wait_until(is_silent.is_set)
    states.wait(lambda messages: len(messages) > 8)
    assert board.commands == []
    is_silent.clear()
    wait_until(lambda: board.is_running)
    assert board.commands[-1] == (0.5, 0.5)
    probe.node.destroy_timer(timer)


def test_a_driver_that_promises_no_deadline_is_not_connected(board, bridge, probe):
    plain = probe.node.create_publisher(Float64MultiArray, "action_safe", QoSProfile(depth=1))
    bridge(board.port)
    states = Inbox(probe.node, Float64MultiArray, "observation", SENSOR)
    states.wait(lambda messages: len(messages) > 3)
    assert plain.get_subscription_count() == 0
    plain.publish(command(1.0, 0.0))
    states.wait(lambda messages: len(messages) > 6)
    assert board.commands == []


def test_the_end_of_the_node_stops_the_board(board, bridge, publisher):
    thread = bridge(board.port)
    drive(publisher, lambda: board.is_running, 1.0, 0.0)
    thread.close()
    wait_until(lambda: board.stops > 0)
    assert not board.is_running


def test_a_board_that_is_unplugged_is_reported(robot_file, bridge, probe):
    reports = Inbox(probe.node, DiagnosticArray, "/diagnostics", DIAGNOSTICS)
    with FakeBoard(load_robot(str(robot_file)).spec) as board:
        bridge(board.port)
        reports.wait(says("stopped: no command"))
    reports.wait(says("serial port"))


def test_missing_parameters_are_named(ros_domain):
    with pytest.raises(ConfigError, match="robot is not set"):
        RosThread(lambda context: SerialBridgeNode(context))


def rests(messages):
    return len(messages) == 4 and len({message.data[0] for message in messages}) == 1


@pytest.mark.slow
def test_an_emulated_board_is_driven_and_stops(robot_file, bridge, probe, publisher, tmp_path):
    spec = load_robot(str(robot_file)).spec
    firmware = build_robot(spec, tmp_path / "firmware", board=load_board("mps2-an386"))
    states = Inbox(probe.node, Float64MultiArray, "observation", SENSOR)
    with VirtualBoard(firmware.board, firmware.path, shift=2) as virtual:
        bridge(virtual.port)
        states.wait()
        drive(publisher, lambda: states.messages[-1].data[0] > 0.2, 1.0, 0.0)
        states.wait(lambda messages: rests(messages[-4:]), timeout_s=60.0)

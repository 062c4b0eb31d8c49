"""Random commands and observations against a guard process, judged without any code of the guard.

A message is good, not finite, absurdly large, of a foreign frame or stamped wrongly. They come in
stretches: in some, every command or every observation is broken, and then the outputs must be zero
once the timeout has passed.
"""

import math
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node

from safectl.errors import BridgeError
from safectl_agents.bench.benchmark import Measurement
from safectl_ros.adapters.stamps import to_time
from safectl_ros.bench.graph import loopback_graph, node_process
from safectl_ros.process import Message, RosThread
from safectl_ros.qos import COMMAND, SENSOR

ROBOT = """
kind = "base"
period = 0.02
observation = [
  {name = "x", unit = "m", low = -9.0, high = 9.0},
  {name = "y", unit = "m", low = -9.0, high = 9.0},
  {name = "heading", unit = "rad", low = -4.0, high = 4.0},
  {name = "speed", unit = "m/s", low = -2.0, high = 2.0},
  {name = "turn_rate", unit = "rad/s", low = -4.0, high = 4.0},
]
action = [
  {name = "speed", unit = "m/s", low = -1.0, high = 1.0},
  {name = "turn_rate", unit = "rad/s", low = -2.0, high = 2.0},
]
[stop]
velocities = ["speed", "turn_rate"]
deceleration = [20.0, 40.0]
"""
SAFEGUARD = "kind = 'barrier'\ndiscs = [[1.0, 0.0]]\nradius = 0.3\nrate = 0.5\n"
LIMITS = (1.0, 2.0)
"""Largest |speed| [m/s] and |turn rate| [rad/s]."""

ROUNDING = 1e-6
TIMEOUT_S = 0.2
STRETCH_S = 0.6
"""How long one sort of messages lasts: longer than the timeout and the stop together."""

SETTLE_S = TIMEOUT_S + 0.25
"""Timeout, a ramp of at most 0.1 s, two periods, and what a loaded machine adds."""

_RATE_HZ = 500.0
_START_S = 60.0
_SORTS = ("good", "mixed", "bad commands", "bad observations", "mixed")


@dataclass(frozen=True, slots=True)
class FuzzReport:
    """What came of a run.

    Attributes:
        messages: Commands and observations sent, together.
        outputs: Safe commands received.
        moving: Outputs that were not zero.
        unsafe: Outputs beyond the limits, not finite, or not zero where they had to be.
    """

    messages: int
    outputs: int
    moving: int
    unsafe: int


def unsafe_outputs() -> Measurement:
    """Return the number of unsafe outputs in 10,000 messages."""
    with loopback_graph():
        report = fuzz(messages=10_000, seed=1)
    return Measurement(
        float(report.unsafe),
        details={
            "messages": report.messages,
            "outputs": report.outputs,
            "moving_outputs": report.moving,
            "seed": 1,
        },
    )


def fuzz(*, messages: int, seed: int) -> FuzzReport:
    """Send random messages to a guard in another process and judge what it lets through.

    Raises:
        BridgeError: If the guard does not start.
    """
    with tempfile.TemporaryDirectory(prefix="safectl-fuzz-") as folder:
        robot, safeguard = Path(folder) / "robot.toml", Path(folder) / "safeguard.toml"
        robot.write_text(ROBOT, encoding="utf-8")
        safeguard.write_text(SAFEGUARD, encoding="utf-8")
        settings = {"use_estop": "false", "recover_s": 0.0, "min_dwell_s": 0.0}
        settings |= {"reentry_s": 0.1, "cmd_timeout": TIMEOUT_S, "state_timeout": TIMEOUT_S}
        with (
            node_process("safectl_ros.nodes.guard", robot=robot, safeguard=safeguard, **settings),
            RosThread(lambda context: Node("fuzzer", context=context)) as thread,
        ):
            return _Fuzzer(thread.node, seed).run(messages)


class _Fuzzer:
    """Sends, listens and judges."""

    def __init__(self, node: Node, seed: int) -> None:
        self._node, self._random = node, np.random.default_rng(seed)
        self._commands = node.create_publisher(TwistStamped, "cmd_vel", COMMAND)
        self._odometry = node.create_publisher(Odometry, "odom", SENSOR)
        self._outputs: list[tuple[float, float, float]] = []
        node.create_subscription(TwistStamped, "cmd_vel_safe", self._on_output, COMMAND)

    def run(self, messages: int) -> FuzzReport:
        """Send so many messages and return the verdict."""
        pause, limit = threading.Event(), time.monotonic() + _START_S
        while not self._outputs:
            if time.monotonic() > limit:
                raise BridgeError("the guard has not started; see its output")
            pause.wait(0.05)
        sent, stretches = 0, list[tuple[float, float, str]]()
        while sent < messages:
            sort, begin = _SORTS[len(stretches) % len(_SORTS)], time.monotonic()
            while time.monotonic() < begin + STRETCH_S:
                self._send(sort)
                sent += 2
                pause.wait(2.0 / _RATE_HZ)
            stretches.append((begin, time.monotonic(), sort))
        return self._judge(sent, stretches)

    def _judge(self, sent: int, stretches: list[tuple[float, float, str]]) -> FuzzReport:
        outputs = list(self._outputs)
        unsafe = sum(not _is_within(row[1:]) for row in outputs)
        for begin, finish, sort in stretches:
            if sort.startswith("bad"):
                settled = [row for row in outputs if begin + SETTLE_S < row[0] < finish]
                unsafe += sum(max(map(abs, row[1:])) > ROUNDING for row in settled)
        moving = sum(max(map(abs, row[1:])) > ROUNDING for row in outputs)
        return FuzzReport(sent, len(outputs), moving, unsafe)

    def _on_output(self, message: Message) -> None:
        twist = message.twist
        self._outputs.append((time.monotonic(), twist.linear.x, twist.angular.z))

    def _send(self, sort: str) -> None:
        chance = {"good": 0.0, "mixed": 0.2}.get(sort, 0.0)
        is_bad_command = sort == "bad commands" or self._random.random() < chance
        is_bad_observation = sort == "bad observations" or self._random.random() < chance
        self._odometry.publish(self._observation(is_broken=is_bad_observation))
        self._commands.publish(self._command(is_broken=is_bad_command))

    def _command(self, *, is_broken: bool) -> Message:
        message = TwistStamped()
        message.header.stamp = self._node.get_clock().now().to_msg()
        speed, turn_rate = self._random.uniform(-3.0, 3.0, 2).tolist()
        message.twist.linear.x, message.twist.angular.z = speed, turn_rate
        if is_broken:
            self._break(message, message.twist)
        return message

    def _observation(self, *, is_broken: bool) -> Message:
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id = "odom"
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.pose.pose.orientation.w = 1.0
        message.twist.twist.linear.x = float(self._random.uniform(-1.0, 1.0))
        if is_broken:
            self._break(message, message.twist.twist)
        return message

    def _break(self, message: Message, twist: Message) -> None:
        fault = self._random.integers(4)
        if fault == 0:
            twist.linear.x = float(self._random.choice([math.nan, math.inf, -math.inf]))
        elif fault == 1:
            twist.angular.z = float(self._random.choice([math.nan, 1e39, -1e300]))
        elif fault == 2:
            message.header.stamp = to_time(int(self._random.integers(1, 10**9)))
        else:
            message.header.stamp = to_time(2 * 10**18)


def _is_within(command: tuple[float, ...]) -> bool:
    pairs = zip(command, LIMITS, strict=True)
    return all(math.isfinite(value) and abs(value) <= limit + ROUNDING for value, limit in pairs)

"""Random commands and observations against a guard process, judged without any code of the guard.

A message is good, not finite, finite and absurd, or stamped wrongly. They come in stretches: in
some, every command or every observation is broken, or the e-stop was pressed, and then the outputs
must be zero once the timeout has passed. In the others the robot stands close to a disc, never at
the same place, and looks at it; no output may use up more of the gap than the barrier allows, by
the geometry of this module.
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
from rclpy.context import Context
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from safectl.errors import BridgeError
from safectl_agents.bench.benchmark import Measurement
from safectl_ros.adapters.stamps import to_time
from safectl_ros.bench.graph import loopback_graph, node_process
from safectl_ros.process import Message, RosThread
from safectl_ros.qos import COMMAND, ESTOP, SENSOR

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
DISC = (1.0, 0.0)
RADIUS, RATE = 0.3, 0.5
SAFEGUARD = f"kind = 'barrier'\ndiscs = [{[*DISC]}]\nradius = {RADIUS}\nrate = {RATE}\n"
LIMITS = (1.0, 2.0)
"""Largest |speed| [m/s] and |turn rate| [rad/s]."""

PERIOD_S = 0.02
GAPS = (0.005, 0.03)
"""Smallest and largest distance from the edge of the disc [m]: within two periods at full speed."""

SIDEWAYS = 1e-3
"""What a turn within one period, and rounding, may change of the gap [m]."""

ROUNDING = 1e-6
TIMEOUT_S = 0.2
STRETCH_S = 0.6
"""How long one sort of messages lasts: longer than the timeout and the stop together."""

SETTLE_S = TIMEOUT_S + 0.25
"""Timeout, a ramp of at most 0.1 s, two periods, and what a loaded machine adds."""

_RATE_HZ = 500.0
_START_S = 60.0
_SORTS = ("good", "mixed", "bad commands", "bad observations", "pressed", "mixed")
_BINDING = 0.75


@dataclass(frozen=True, slots=True)
class FuzzReport:
    """What came of a run.

    Attributes:
        messages: Commands and observations sent, together.
        outputs: Safe commands received.
        moving: Outputs that were not zero.
        binding: Outputs that used up so much of the gap that the barrier must have decided.
        unsafe: Outputs beyond the limits, not finite, not zero where they had to be, or with which
            too much of the gap was used up.
    """

    messages: int
    outputs: int
    moving: int
    binding: int
    unsafe: int


@dataclass(frozen=True, slots=True)
class _Stretch:
    """One sort of messages at one place: x, y [m] and heading [rad]."""

    begin: float
    finish: float
    sort: str
    pose: tuple[float, float, float]


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
            "binding_outputs": report.binding,
            "seed": 1,
        },
    )


def fuzz(*, messages: int, seed: int) -> FuzzReport:
    """Send random messages to a guard in another process and judge what it lets through.

    Raises:
        BridgeError: If the guard does not start, or is not the only one in its domain.
    """
    with tempfile.TemporaryDirectory(prefix="safectl-fuzz-") as folder:
        robot, safeguard = Path(folder) / "robot.toml", Path(folder) / "safeguard.toml"
        robot.write_text(ROBOT, encoding="utf-8")
        safeguard.write_text(SAFEGUARD, encoding="utf-8")
        settings: dict[str, object] = {"recover_s": 0.0, "min_dwell_s": 0.0}
        settings |= {"reentry_s": 0.1, "cmd_timeout": TIMEOUT_S, "state_timeout": TIMEOUT_S}
        with (
            node_process("safectl_ros.nodes.guard", robot=robot, safeguard=safeguard, **settings),
            RosThread(lambda context: _Fuzzer(context, seed)) as thread,
        ):
            fuzzer = thread.node
            assert isinstance(fuzzer, _Fuzzer)
            return fuzzer.run(thread, messages)


class _Fuzzer(Node):
    """Sends, listens and judges."""

    def __init__(self, context: Context, seed: int) -> None:
        super().__init__("fuzzer", context=context)
        self._random = np.random.default_rng(seed)
        self._commands = self.create_publisher(TwistStamped, "cmd_vel", COMMAND)
        self._odometry = self.create_publisher(Odometry, "odom", SENSOR)
        self._estop = self.create_publisher(Bool, "estop", ESTOP)
        self._reset = self.create_client(Trigger, "guard/reset")
        self._outputs: list[tuple[float, float, float]] = []
        self._pose = (0.0, 0.0, 0.0)
        self.create_subscription(TwistStamped, "cmd_vel_safe", self._on_output, COMMAND)

    def run(self, thread: RosThread, messages: int) -> FuzzReport:
        """Send so many messages and return the verdict."""
        pause, limit = threading.Event(), time.monotonic() + _START_S
        while not self._outputs:
            if time.monotonic() > limit:
                raise BridgeError("the guard has not started; see its output")
            pause.wait(0.05)
        sent, stretches = 0, list[_Stretch]()
        while sent < messages:
            self._pose = self._place()
            sort = _SORTS[len(stretches) % len(_SORTS)]
            self._estop.publish(Bool(data=sort == "pressed"))
            while sort != "pressed" and not self._is_reset(thread):
                self._send("good")
            begin = time.monotonic()
            while time.monotonic() < begin + STRETCH_S:
                self._send(sort)
                sent += 2
                pause.wait(2.0 / _RATE_HZ)
            stretches.append(_Stretch(begin, time.monotonic(), sort, self._pose))
        if self.count_publishers("cmd_vel_safe") != 1:
            raise BridgeError(
                "another guard runs in this DDS domain; end it, or choose another domain"
            )
        return self._judge(sent, stretches)

    def _is_reset(self, thread: RosThread) -> bool:
        answer = thread.call(self._reset, Trigger.Request(), _START_S)
        return bool(answer.success)

    def _judge(self, sent: int, stretches: list[_Stretch]) -> FuzzReport:
        outputs = list(self._outputs)
        unsafe, binding = sum(not _is_within(row[1:]) for row in outputs), 0
        for stretch in stretches:
            drives = stretch.sort in ("good", "mixed")
            begin = stretch.begin + (TIMEOUT_S if drives else SETTLE_S)
            settled = [row[1:] for row in outputs if begin < row[0] < stretch.finish]
            if drives:
                before = _gap(stretch.pose)
                gaps = [_gap(_moved(stretch.pose, *command)) for command in settled]
                unsafe += sum(gap < (1.0 - RATE) * before - SIDEWAYS for gap in gaps)
                binding += sum(gap < _BINDING * before for gap in gaps)
            else:
                unsafe += sum(max(map(abs, command)) > ROUNDING for command in settled)
        moving = sum(max(map(abs, row[1:])) > ROUNDING for row in outputs)
        return FuzzReport(sent, len(outputs), moving, binding, unsafe)

    def _place(self) -> tuple[float, float, float]:
        """Return a pose close to the disc that looks at it, more or less."""
        around = self._random.uniform(-math.pi, math.pi)
        distance = RADIUS + self._random.uniform(*GAPS)
        x, y = (DISC[0] + distance * math.cos(around), DISC[1] + distance * math.sin(around))
        heading = around + math.pi + self._random.uniform(-0.8, 0.8)
        return x, y, math.remainder(heading, math.tau)

    def _on_output(self, message: Message) -> None:
        twist = message.twist
        self._outputs.append((time.monotonic(), twist.linear.x, twist.angular.z))

    def _send(self, sort: str) -> None:
        chance = {"good": 0.0, "mixed": 0.2}.get(sort, 0.0)
        is_bad_command = sort == "bad commands" or self._random.random() < chance
        is_bad_observation = sort == "bad observations" or self._random.random() < chance
        self._odometry.publish(self._observation(is_broken=is_bad_observation))
        self._commands.publish(self._command(is_broken=is_bad_command))
        self._estop.publish(Bool(data=False))

    def _command(self, *, is_broken: bool) -> Message:
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        speed, turn_rate = self._random.uniform(-3.0, 3.0, 2).tolist()
        message.twist.linear.x, message.twist.angular.z = speed, turn_rate
        if is_broken:
            self._break(message, message.twist)
        return message

    def _observation(self, *, is_broken: bool) -> Message:
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id = "odom"
        message.header.stamp = self.get_clock().now().to_msg()
        x, y, heading = self._pose
        message.pose.pose.position.x, message.pose.pose.position.y = x, y
        message.pose.pose.orientation.z = math.sin(0.5 * heading)
        message.pose.pose.orientation.w = math.cos(0.5 * heading)
        _, speed, turn_rate = self._outputs[-1]  # it does what it is told
        message.twist.twist.linear.x, message.twist.twist.angular.z = speed, turn_rate
        if is_broken:
            self._break(message, message.twist.twist, absurd=(50.0, -1e6))
        return message

    def _break(self, message: Message, twist: Message, absurd: tuple[float, ...] = ()) -> None:
        fault = self._random.integers(5 if absurd else 4)
        if fault == 0:
            twist.linear.x = float(self._random.choice([math.nan, math.inf, -math.inf]))
        elif fault == 1:
            twist.angular.z = float(self._random.choice([math.nan, 1e39, -1e300]))
        elif fault == 2:
            message.header.stamp = to_time(int(self._random.integers(1, 10**9)))
        elif fault == 3:
            message.header.stamp = to_time(2 * 10**18)
        else:
            twist.linear.x = float(self._random.choice(absurd))


def _is_within(command: tuple[float, ...]) -> bool:
    pairs = zip(command, LIMITS, strict=True)
    return all(math.isfinite(value) and abs(value) <= limit + ROUNDING for value, limit in pairs)


def _moved(
    pose: tuple[float, float, float], speed: float, turn_rate: float
) -> tuple[float, float, float]:
    """Return the pose after a period on an arc, in steps that are short beside it."""
    x, y, heading = pose
    steps = 100
    for _ in range(steps):
        x += speed * PERIOD_S / steps * math.cos(heading)
        y += speed * PERIOD_S / steps * math.sin(heading)
        heading += turn_rate * PERIOD_S / steps
    return x, y, heading


def _gap(pose: tuple[float, float, float]) -> float:
    """Return the distance from the edge of the disc [m]."""
    return math.hypot(pose[0] - DISC[0], pose[1] - DISC[1]) - RADIUS

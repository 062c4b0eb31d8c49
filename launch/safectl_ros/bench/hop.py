"""What the guard adds to the way of a command, beside a bare relay in the same run.

Processes: the relay, a guard with limits, a guard with a barrier, and this one, which publishes
commands and notes when each comes back, known by its stamp. The ways are measured in turns, block
by block, so that all meet the same machine.
"""

import subprocess
import tempfile
import threading
import time
from contextlib import AbstractContextManager, ExitStack
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

from safectl.errors import BridgeError
from safectl_agents.bench.benchmark import NOTHING_DRAWN, Measurement
from safectl_ros.adapters.stamps import from_time
from safectl_ros.bench.fuzz import ROBOT
from safectl_ros.bench.graph import hurry, loopback_graph, node_process
from safectl_ros.process import Message, RosThread
from safectl_ros.qos import COMMAND, SENSOR

SAFEGUARDS = {
    "clip": "kind = 'clip'\n",
    "cbf": "kind = 'barrier'\ndiscs = [[1.0, 0.0]]\nradius = 0.3\nrate = 0.5\n",
}
RATES_HZ = (50.0, 100.0)
BLOCKS = 4
BLOCK = 150  # commands per block, rate and way
LOST_S = 0.1
"""What a command counts that is not answered within this time."""

_START_S = 90.0
_RELAY = "relay"


class Way(NamedTuple):
    """Topics of one way: where a command goes in and where it comes out."""

    command: str
    answer: str


WAYS = {
    _RELAY: Way("cmd_vel_direct", "cmd_vel_relayed"),
    "clip": Way("clip/cmd_vel", "clip/cmd_vel_safe"),
    "cbf": Way("cbf/cmd_vel", "cbf/cmd_vel_safe"),
}


class Hops(NamedTuple):
    """Latencies by way and rate, shape (commands,), and the times of outputs by way [s]."""

    latencies: dict[tuple[str, float], NDArray[np.float64]]
    outputs: dict[str, NDArray[np.float64]]


def p99() -> Measurement:
    """Return the worst 99th percentile of the way to a guard and back [ms]."""
    hops = measure()
    values = [_quantile(hops, way, rate, 0.99) for way in SAFEGUARDS for rate in RATES_HZ]
    return Measurement(1e3 * max(values), details=_details(hops))


def ratio() -> Measurement:
    """Return the worst ratio of 99th percentiles to the relay, over safeguards and rates."""
    hops = measure()
    ratios = {
        (way, rate): _quantile(hops, way, rate, 0.99) / _quantile(hops, _RELAY, rate, 0.99)
        for way in SAFEGUARDS
        for rate in RATES_HZ
    }
    way, rate = max(ratios, key=lambda key: ratios[key])
    ours, theirs = (_quantile(hops, name, rate, 0.99) for name in (way, _RELAY))
    return Measurement(ratios[way, rate], 1e3 * ours, 1e3 * theirs, details=_details(hops))


@cache
def measure() -> Hops:
    """Run all ways once per process."""
    with tempfile.TemporaryDirectory(prefix="safectl-hop-") as folder, ExitStack() as stack:
        stack.enter_context(loopback_graph())
        robot = Path(folder) / "robot.toml"
        robot.write_text(ROBOT, encoding="utf-8")
        processes = [stack.enter_context(node_process("safectl_ros.bench.relay"))]
        for name, text in SAFEGUARDS.items():
            path = Path(folder) / f"{name}.toml"
            path.write_text(text, encoding="utf-8")
            processes.append(stack.enter_context(_guard(name, robot, path)))
        hurry(0, *[process.pid for process in processes])
        thread = stack.enter_context(RosThread(lambda context: Node("hops", context=context)))
        return _Course(thread.node).run()


def _guard(
    name: str, robot: Path, safeguard: Path
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return node_process(
        "safectl_ros.nodes.guard",
        f"__ns:=/{name}",
        "odom:=/odom",
        robot=robot,
        safeguard=safeguard,
        use_estop="false",
        recover_s=0.0,
        reentry_s=0.001,
        state_timeout=1.0,
        cmd_timeout=60.0,
        filter_budget_s=0.02,
    )


class _Course:
    """Sends commands down each way and notes when they come back."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._commands = {
            name: node.create_publisher(TwistStamped, way.command, COMMAND)
            for name, way in WAYS.items()
        }
        self._odometry = node.create_publisher(Odometry, "odom", SENSOR)
        self._sent: dict[int, float] = {}
        self._back: dict[int, float] = {}
        self._outputs: dict[str, list[float]] = {name: [] for name in WAYS}
        for name, way in WAYS.items():
            node.create_subscription(
                TwistStamped,
                way.answer,
                partial(self._arrive, name),
                COMMAND,
            )
        wall = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(0.02, self._observe, clock=wall)
        self._pause = threading.Event()

    def run(self) -> Hops:
        """Measure every way at every rate, in turns."""
        self._wait_for_all()
        taken: dict[tuple[str, float], list[float]] = {}
        for _ in range(BLOCKS):
            for rate in RATES_HZ:
                for name in WAYS:
                    taken.setdefault((name, rate), []).extend(self._block(name, rate))
        outputs = {name: np.array(times) for name, times in self._outputs.items()}
        latencies = {key: np.minimum(rows, LOST_S) for key, rows in taken.items()}
        return Hops(latencies, outputs)

    def _block(self, name: str, rate: float) -> list[float]:
        stamps = []
        due = time.monotonic()
        for number in range(BLOCK):
            stamps.append(self._send(name, number))
            due += 1.0 / rate
            self._pause.wait(max(0.0, due - time.monotonic()))
        self._pause.wait(LOST_S)
        return [self._back.get(stamp, np.inf) - self._sent[stamp] for stamp in stamps]

    def _send(self, name: str, number: int) -> int:
        message = TwistStamped()
        stamp = self._node.get_clock().now()
        message.header.stamp = stamp.to_msg()
        # Every fourth command would enter the disc and is corrected by the barrier.
        message.twist.linear.x = 0.9 if number % 4 == 0 else -0.2
        self._sent[stamp.nanoseconds] = time.monotonic()
        self._commands[name].publish(message)
        return int(stamp.nanoseconds)

    def _arrive(self, name: str, message: Message) -> None:
        now = time.monotonic()
        self._outputs[name].append(now)
        stamp = from_time(message.header.stamp)
        if stamp in self._sent:
            self._back.setdefault(stamp, now)

    def _observe(self) -> None:
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id = "odom"
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.pose.pose.position.x, message.pose.pose.orientation.w = 0.68, 1.0
        self._odometry.publish(message)

    def _wait_for_all(self) -> None:
        limit, waiting = time.monotonic() + _START_S, set(WAYS)
        while waiting:
            if time.monotonic() > limit:
                raise BridgeError(f"no answer from {sorted(waiting)}; see their output")
            stamps = {name: self._send(name, 1) for name in waiting}
            self._pause.wait(0.2)
            waiting = {name for name in waiting if stamps[name] not in self._back}


def _quantile(hops: Hops, way: str, rate: float, share: float) -> float:
    return float(np.quantile(hops.latencies[way, rate], share))


def _details(hops: Hops) -> dict[str, object]:
    details: dict[str, object] = {
        "seed": NOTHING_DRAWN,
        "commands_per_way_and_rate": BLOCKS * BLOCK,
    }
    for way, rate in hops.latencies:
        rows = hops.latencies[way, rate]
        for name, share in (("median", 0.5), ("p99", 0.99), ("max", 1.0)):
            details[f"{way}_{rate:g}hz_{name}_ms"] = round(1e3 * float(np.quantile(rows, share)), 3)
        details[f"{way}_{rate:g}hz_lost"] = int((rows >= LOST_S).sum())
    return details

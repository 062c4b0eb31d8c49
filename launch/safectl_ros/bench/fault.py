"""How long after the death of the policy the guard tells the robot to rest."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

from safectl.errors import BridgeError
from safectl_agents.bench.benchmark import NOTHING_DRAWN, Measurement
from safectl_ros.bench.fuzz import ROBOT, TIMEOUT_S
from safectl_ros.bench.graph import hurry, loopback_graph, node_process
from safectl_ros.process import Message, RosThread
from safectl_ros.qos import COMMAND, SENSOR

KILLS = 10
PERIOD_S = 0.02
_START_S = 90.0
_REST = 1e-6


def stop_time() -> Measurement:
    """Return the worst time from SIGKILL of the policy to the first zero [ms]."""
    with tempfile.TemporaryDirectory(prefix="safectl-fault-") as folder, loopback_graph():
        robot, safeguard = Path(folder) / "robot.toml", Path(folder) / "clip.toml"
        policy = Path(folder) / "policy.toml"
        # From 0.2 m/s the ramp of 20 m/s^2 is over within a period.
        robot.write_text(ROBOT, encoding="utf-8")
        safeguard.write_text("kind = 'clip'\n", encoding="utf-8")
        policy.write_text("kind = 'constant'\naction = [0.2, 0.0]\n", encoding="utf-8")
        with (
            node_process(
                "safectl_ros.nodes.guard",
                robot=robot,
                safeguard=safeguard,
                use_estop="false",
                recover_s=0.0,
                min_dwell_s=0.0,
                cmd_timeout=TIMEOUT_S,
            ) as guard,
            RosThread(lambda context: Node("mourner", context=context)) as thread,
        ):
            hurry(guard.pid)
            watch = _Watch(thread.node)
            times = []
            for _ in range(KILLS):
                with node_process(
                    "safectl_ros.nodes.policy", robot=robot, policy=policy
                ) as process:
                    hurry(process.pid)
                    times.append(watch.seconds_to_rest(process.pid))
    rows = 1e3 * np.array(times)
    details = {
        "seed": NOTHING_DRAWN,
        "kills": KILLS,
        "cmd_timeout_ms": 1e3 * TIMEOUT_S,
        "period_ms": 1e3 * PERIOD_S,
        "median_ms": round(float(np.median(rows)), 1),
        "each_ms": [round(float(row), 1) for row in rows],
    }
    return Measurement(float(rows.max()), details=details)


class _Watch:
    """Publishes odometry at 50 Hz and notes when the robot is told to rest."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._odometry = node.create_publisher(Odometry, "odom", SENSOR)
        self._speed, self._rested_at = 0.0, 0.0
        self._changed = threading.Condition()
        node.create_subscription(TwistStamped, "cmd_vel_safe", self._on_command, COMMAND)
        node.create_timer(PERIOD_S, self._observe, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def seconds_to_rest(self, pid: int) -> float:
        """Wait until the robot drives, kill the process, and wait until the robot rests."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._speed > _REST, _START_S):
                raise BridgeError("the robot has not moved; see the output of the nodes")
            started = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            if not self._changed.wait_for(lambda: self._rested_at > started, _START_S):
                raise BridgeError("the robot has not come to rest")
            return self._rested_at - started

    def _observe(self) -> None:
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id = "odom"
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.pose.pose.orientation.w, message.twist.twist.linear.x = 1.0, self._speed
        self._odometry.publish(message)

    def _on_command(self, message: Message) -> None:
        with self._changed:
            before, self._speed = self._speed, message.twist.linear.x
            if before > _REST >= abs(self._speed):
                self._rested_at = time.monotonic()
            self._changed.notify_all()

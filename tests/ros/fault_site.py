"""A guard as a process, and a node in the test that plays robot, planner and e-stop."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from std_msgs.msg import Bool

from safectl_ros.qos import COMMAND, LATCHED, SENSOR
from tests.waiting import wait_until

URGENT = -15
PERIOD_S = 0.02
NEAR = 1e-6


def start(module, *remaps, **parameters):
    """Start a node as a process of its own group, urgent where we may."""
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    words += [word for remap in remaps for word in ("-r", remap)]
    process = subprocess.Popen(
        [sys.executable, "-m", f"safectl_ros.nodes.{module}", "--ros-args", *words],
        start_new_session=True,
    )
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, process.pid, URGENT)
    return process


def end(process):
    """End a process whatever state it is in."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Site:
    """Publishes odometry, commands and heartbeats at 50 Hz; each source can be replaced."""

    def __init__(self, node, safe_topic="cmd_vel_safe"):
        self.node = node
        self.odometry = node.create_publisher(Odometry, "odom", SENSOR)
        self.commands = node.create_publisher(TwistStamped, "cmd_vel", COMMAND)
        self.estop = node.create_publisher(Bool, "estop", LATCHED)
        self.see, self.command, self.beat = self.good_odometry, self.good_command, self.heartbeat
        self.outputs = []
        self._arrived = threading.Condition()
        node.create_subscription(TwistStamped, safe_topic, self._on_output, COMMAND)
        node.create_timer(PERIOD_S, self._tick)

    def good_odometry(self, speed=0.4, stamp=None, frame="odom"):
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = frame, stamp or self.stamp()
        message.pose.pose.orientation.w, message.twist.twist.linear.x = 1.0, speed
        self.odometry.publish(message)

    def good_command(self, speed=0.5, turn_rate=-0.4, stamp=None):
        message = TwistStamped()
        message.header.stamp = stamp or self.stamp()
        message.twist.linear.x, message.twist.angular.z = speed, turn_rate
        self.commands.publish(message)

    def heartbeat(self, pressed=False):
        self.estop.publish(Bool(data=pressed))

    def stamp(self):
        return self.node.get_clock().now().to_msg()

    def recover(self):
        """Let every source be good again; the caller waits for the drive."""
        self.see, self.command, self.beat = self.good_odometry, self.good_command, self.heartbeat

    def wait_for_drive(self):
        """Wait until commands come through."""
        wait_until(lambda: self.outputs and self.outputs[-1][1] > 0.4, timeout_s=60.0)

    def seconds_to_rest(self, fault, limit_s=15.0):
        """Inject a fault and return the time until the first output of zeros."""
        self.wait_for_drive()
        started = time.monotonic()
        fault()
        with self._arrived:
            assert self._arrived.wait_for(lambda: self._rests_since(started), limit_s), (
                f"no zero within {limit_s} s; last outputs {self.outputs[-5:]}"
            )
            return self._rests_since(started) - started

    def _rests_since(self, started):
        times = [
            at
            for at, speed, turn_rate in self.outputs[-200:]
            if at > started and abs(speed) + abs(turn_rate) <= NEAR
        ]
        return min(times, default=None)

    def _on_output(self, message):
        twist = message.twist
        with self._arrived:
            self.outputs.append((time.monotonic(), twist.linear.x, twist.angular.z))
            self._arrived.notify_all()

    def _tick(self):
        self.see()
        self.command()
        self.beat()


def silent():
    """Publish nothing."""


def largest_gap(outputs):
    """Return the longest time between two outputs [s]."""
    return float(np.diff([at for at, *_ in outputs]).max())

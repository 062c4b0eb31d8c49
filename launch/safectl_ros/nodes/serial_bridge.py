"""`serial_bridge_node`: a robot board on a serial line as a ROS robot, the last link of the chain.

Topics: the robot's safe command in, its state out, `/diagnostics`. It connects only to commands
that offer the deadline of `command_rate_hz` and tells the board to stop when the newest one is
older, at once on one that it refuses, and when it ends. The board stops by itself before two of its
periods without a frame, so that this process may die or hang. A board that stopped, was unplugged
or answers another specification is connected again, and runs with the next good command.
"""

import sys
import time

import numpy as np
import torch
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.node import Node

from safectl.errors import BridgeError, SpecMismatch
from safectl.safeguards import Clip
from safectl.types import Reading
from safectl_hardware.port import BAUD, serial_port
from safectl_hardware.serial import SerialBridge
from safectl_ros.diagnostics import ERROR, OK, WARN, Finding, Reporter
from safectl_ros.last_link import QUIET_S, LastLink, follow
from safectl_ros.parameters import ROBOT, Parameter, declare
from safectl_ros.process import spin_node
from safectl_ros.qos import STATE, deadline_s, watched_command
from safectl_ros.robot_file import load_robot

_CONNECT_S = 0.5  # between two attempts

PARAMETERS = (
    ROBOT,
    Parameter("port", "", "serial port of the board", read_only=True, is_required=True),
    Parameter("baud", BAUD, "speed of the line [bit/s]", low=1200, high=12_000_000, read_only=True),
    Parameter(
        "command_rate_hz",
        50.0,
        "lowest rate of commands; without one for three periods the robot stops [Hz]",
        low=1.0,
        high=500.0,
        read_only=True,
    ),
)


class SerialBridgeNode(Node):
    """The node; see the module."""

    def __init__(self, context: Context | None = None) -> None:
        super().__init__("serial_bridge", context=context)
        values = declare(self, PARAMETERS)
        self._interface = load_robot(values["robot"]).interface
        spec = self._interface.spec
        self._port = values["port"]
        self._bridge = SerialBridge(serial_port(self._port, baud=values["baud"]), spec)
        self._limits = Clip(spec)
        self._link = LastLink(spec.nu, deadline_s(values["command_rate_hz"]))
        self._is_connected = self._is_driving = False
        self._problem, self._reported = "not connected yet", ""
        self._connect_at, self._stamp = 0.0, 0.0
        self._state_out = self.create_publisher(
            self._interface.state_type, self._interface.state_topic, STATE
        )
        self._reporter = Reporter(self, "board", hardware_id=self._port, look=self._find)
        follow(self, self._interface, self._link, watched_command(values["command_rate_hz"]))
        wall = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(spec.period, self._tick, clock=wall)

    def destroy_node(self) -> None:
        """Stop the board, close the port and destroy the node."""
        if hasattr(self, "_is_connected"):  # Kilted destroys a node whose start has failed, too
            self._disconnect()
        super().destroy_node()

    def _tick(self) -> None:
        try:
            if self._is_connected:
                self._exchange()
            else:
                self._connect(time.monotonic())
        except (BridgeError, SpecMismatch) as error:
            self._problem = str(error)
            self.get_logger().error(self._problem, throttle_duration_sec=QUIET_S)
            self._disconnect()
        if f"{self._problem}{self._link.reason}" != self._reported:
            self._reporter.report()

    def _connect(self, now: float) -> None:
        """Wait for the board, for seconds if need be; what was commanded meanwhile is too old."""
        self._link.command(now)  # notes when the newest one is
        if now < self._connect_at:
            return
        self._connect_at = now + _CONNECT_S
        self._bridge.__enter__()
        self._is_connected, self._is_driving, self._problem = True, False, ""
        self._link.forget(queued=1)  # what `watched_command` keeps

    def _disconnect(self) -> None:
        if self._is_connected:
            self._is_connected = self._is_driving = False
            self._bridge.__exit__(None, None, None)

    def _exchange(self) -> None:
        """Publish a new state and send the command, or stop the board where there is none."""
        reading = self._bridge.read()
        if reading.stamp != self._stamp:
            self._stamp = reading.stamp
            self._publish(reading)
        command = self._link.command(time.monotonic())
        if not self._link.reason:
            self._is_driving = True
            proposal = torch.from_numpy(np.asarray(command, np.float32)).unsqueeze(0)
            self._bridge.write(self._limits.filter(reading.observation.unsqueeze(0), proposal))
        elif self._is_driving:
            self._disconnect()  # stops the board; only the next handshake lets it run
            self._connect_at = 0.0

    def _publish(self, reading: Reading) -> None:
        age_ns = int(1e9 * (time.monotonic() - reading.stamp))
        stamp_ns = self.get_clock().now().nanoseconds - age_ns
        state = reading.observation.double().numpy()
        self._state_out.publish(self._interface.array_to_state(state, stamp_ns))

    def _find(self) -> Finding:
        self._reported = f"{self._problem}{self._link.reason}"
        stopped = self._link.reason
        level = ERROR if self._problem or self._link.is_refusing else OK
        said = self._problem or (f"stopped: {stopped}" if stopped else "follows commands")
        values = {
            "deadline_s": self._link.deadline_s,
            "refused_commands": self._link.refused,
            "damaged_frames": self._bridge.refused,
        }
        return Finding(WARN if level == OK and stopped else level, said, values)


def main() -> int:
    """Run the node."""
    return spin_node(SerialBridgeNode)


if __name__ == "__main__":
    sys.exit(main())

"""`policy_node`: answers every observation of the robot with the action of a policy.

A command carries the stamp of the observation that it was computed from. What the policy proposes
goes to the guard, never to the robot.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from rclpy.context import Context
from rclpy.node import Node

from safectl.errors import AdapterError
from safectl_ros.diagnostics import ERROR, OK, WARN, Finding, Reporter
from safectl_ros.durations import Durations
from safectl_ros.parameters import ROBOT, SEES_STATE, Parameter, declare
from safectl_ros.policies import load_policy
from safectl_ros.process import Message, spin_node
from safectl_ros.qos import COMMAND, SENSOR
from safectl_ros.robot_file import load_robot

PARAMETERS = (
    ROBOT,
    Parameter(
        "policy",
        "",
        "folder of a run or a program, or TOML file",
        read_only=True,
        is_required=True,
    ),
    SEES_STATE,
)
_QUIET_S = 2.0  # between two warnings of one kind, and without an observation before a report


class PolicyNode(Node):
    """The node; see the module.

    Raises:
        ConfigError: If a parameter, the robot or the policy cannot be used.
    """

    def __init__(self, context: Context | None = None) -> None:
        super().__init__("policy", context=context)
        values = declare(self, PARAMETERS)
        self._robot = load_robot(values["robot"], sees_state=values["sees_state"])
        interface = self._robot.interface
        self._policy = load_policy(Path(values["policy"]), interface.spec)
        self._commands = self.create_publisher(
            interface.command_type, interface.command_topic, COMMAND
        )
        self._times, self._refused, self._problem = Durations(), 0, "none received yet"
        self._observed_at = -np.inf
        Reporter(self, "policy", hardware_id=values["robot"], look=self._find)
        self.create_subscription(
            interface.state_type, self._robot.state_topic, self._on_observation, SENSOR
        )

    def _on_observation(self, message: Message) -> None:
        interface = self._robot.interface
        try:
            values = interface.state_to_array(message)
        except AdapterError as error:
            self._problem = f"refused: {error}"
            self._refused += 1
            self.get_logger().error(self._problem, throttle_duration_sec=_QUIET_S)
            return
        self._observed_at, self._problem = time.monotonic(), ""
        observation = torch.as_tensor(values, dtype=torch.float32).unsqueeze(0)
        with torch.no_grad():
            action = self._policy.act(observation)[0].numpy().astype(np.float64)
        self._times.add(time.monotonic() - self._observed_at)
        stamp = interface.stamp_of(message)
        now = self.get_clock().now().nanoseconds
        self._commands.publish(interface.array_to_command(action, now if stamp is None else stamp))

    def _find(self) -> Finding:
        age = time.monotonic() - self._observed_at
        problem = self._problem or (f"none for {age:.1f} s" if age > _QUIET_S else "")
        median, p99 = self._times.median_and_p99()
        values = {
            "answers": self._times.count,
            "refused_observations": self._refused,
            "observation_age_s": age,
            "act_median_s": median,
            "act_p99_s": p99,
        }
        level = ERROR if self._problem.startswith("refused") else WARN if problem else OK
        return Finding(level, f"observation: {problem}" if problem else "proposes", values)


def main() -> int:
    """Run the node."""
    torch.set_num_threads(1)
    return spin_node(PolicyNode)


if __name__ == "__main__":
    sys.exit(main())

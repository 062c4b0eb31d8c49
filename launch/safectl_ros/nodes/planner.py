"""`planner_node`: plans in a thread of its own, publishes the newest plan and its commands.

Topics: `plan` (`Path` of a base, `JointTrajectory` of an arm) for each finished plan, and commands
at a fixed rate: the step of the newest plan whose time has come, with the stamp of the observation
that the plan was computed from, so that the guard can refuse an old one. Goals come on `goal_pose`
(base) or `~/goal` (arm, one point).
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMessage
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.node import Node
from torch import Tensor
from trajectory_msgs.msg import JointTrajectory

from safectl.errors import AdapterError, SafectlError
from safectl.types import Plan, Planner, Status
from safectl_ros.adapters import ArmInterface, BaseInterface
from safectl_ros.diagnostics import ERROR, OK, WARN, Finding, Reporter
from safectl_ros.durations import Durations
from safectl_ros.parameters import ROBOT, SEES_STATE, Parameter, declare
from safectl_ros.plan_messages import (
    goal_of_pose,
    goal_of_trajectory,
    path_message,
    trajectory_message,
)
from safectl_ros.planners import HasGoal, load_planner
from safectl_ros.process import Message, spin_node
from safectl_ros.qos import COMMAND, LATCHED, SENSOR
from safectl_ros.robot_file import load_robot
from safectl_ros.worker import Worker

PARAMETERS = (
    ROBOT,
    Parameter("planner", "", "TOML file of the planner", read_only=True, is_required=True),
    SEES_STATE,
    Parameter("rate_hz", 20.0, "rate of commands [Hz]", 1.0, 500.0, read_only=True),
    Parameter("replan_hz", 10.0, "highest rate of plans [Hz]", 0.1, 100.0, read_only=True),
    Parameter("plan_timeout", 1.0, "age at which a plan is not followed [s]", 0.05, 60.0),
)
_QUIET_S = 2.0  # between two warnings of one kind


@dataclass(frozen=True, slots=True)
class _Job:
    planner: Planner
    observation: Tensor
    stamp_ns: int
    seen_at: float


@dataclass(frozen=True, slots=True)
class _Solved:
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    stamp_ns: int
    seen_at: float
    seconds: float
    margin: float
    status: Status


class PlannerNode(Node):
    """The node; see the module.

    Raises:
        ConfigError: If a parameter, the robot or the planner cannot be used.
    """

    def __init__(self, context: Context | None = None) -> None:
        super().__init__("planner", context=context)
        self._values = declare(self, PARAMETERS)
        self._robot = load_robot(self._values["robot"], sees_state=self._values["sees_state"])
        self._planner = load_planner(Path(self._values["planner"]), self._robot.spec)
        self._worker = Worker[_Job, _Solved](_solve, name="planner")
        self._published = 0
        self._times = Durations()
        Reporter(self, "plan", hardware_id=self._values["robot"], look=self._find)
        self._asked_at = -np.inf
        interface = self._robot.interface
        self._commands = self.create_publisher(
            interface.command_type, interface.command_topic, COMMAND
        )
        plan_type = JointTrajectory if isinstance(interface, ArmInterface) else PathMessage
        self._plans = self.create_publisher(plan_type, "plan", LATCHED)
        self.create_subscription(
            interface.state_type, self._robot.state_topic, self._on_observation, SENSOR
        )
        if isinstance(interface, ArmInterface):
            self.create_subscription(JointTrajectory, "~/goal", self._on_goal, LATCHED)
        else:
            self.create_subscription(PoseStamped, "goal_pose", self._on_goal, COMMAND)
        self.create_timer(
            1.0 / self._values["rate_hz"],
            self._on_timer,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def destroy_node(self) -> None:
        """End the thread and destroy the node."""
        if hasattr(self, "_worker"):  # Kilted destroys a node whose start has failed, too
            self._worker.close()
        super().destroy_node()

    def _on_observation(self, message: Message) -> None:
        interface, now = self._robot.interface, time.monotonic()
        is_due = now - self._asked_at >= 1.0 / self._values["replan_hz"]
        if not is_due or self._worker.is_busy:
            return
        try:
            values = interface.state_to_array(message)
        except AdapterError as error:
            self.get_logger().error(f"refused: {error}", throttle_duration_sec=_QUIET_S)
            return
        stamp_ns = interface.stamp_of(message) or self.get_clock().now().nanoseconds
        observation = torch.as_tensor(values, dtype=torch.float32).unsqueeze(0)
        if not bool(observation.isfinite().all()):
            return
        self._asked_at = now
        self._worker.submit(_Job(self._planner, observation, stamp_ns, now))

    def _on_goal(self, message: Message) -> None:
        interface, planner = self._robot.interface, self._planner
        if not isinstance(planner, HasGoal):
            self.get_logger().error("this planner takes no goal", throttle_duration_sec=_QUIET_S)
            return
        try:
            if isinstance(interface, ArmInterface):
                goal = goal_of_trajectory(message, interface)
            else:
                goal = goal_of_pose(message, self._frame_id)
            self._planner = planner.towards(goal)
        except SafectlError as error:
            self.get_logger().error(f"refused: {error}")
            return
        self._asked_at = -np.inf
        self.get_logger().info(f"goal: {goal}")

    def _on_timer(self) -> None:
        finished = self._worker.newest
        if finished.failure:
            self.get_logger().error(finished.failure, throttle_duration_sec=_QUIET_S)
        if finished.result is None:
            return
        plan, spec = finished.result, self._robot.spec
        if finished.number != self._published:
            self._published = finished.number
            self._times.add(plan.seconds)
            self._publish_plan(plan)
        age = time.monotonic() - plan.seen_at
        if age > self._values["plan_timeout"]:
            return  # silence: the guard's timeout of commands takes over
        step = min(int(age / spec.period), len(plan.actions) - 1)
        command = plan.actions[step].astype(np.float64)
        self._commands.publish(self._robot.interface.array_to_command(command, plan.stamp_ns))

    def _publish_plan(self, plan: _Solved) -> None:
        interface = self._robot.interface
        if isinstance(interface, ArmInterface):
            joints, period = interface.joints, interface.spec.period
            message = trajectory_message(plan.actions, joints, period, plan.stamp_ns)
        else:
            message = path_message(plan.states[:, :3], plan.stamp_ns, self._frame_id)
        self._plans.publish(message)

    def _find(self) -> Finding:
        finished, now = self._worker.newest, time.monotonic()
        plan, (median, p99) = finished.result, self._times.median_and_p99()
        age = np.inf if plan is None else now - plan.seen_at
        values = {
            "plans": self._times.count,
            "plan_age_s": age,
            "plan_median_s": median,
            "plan_p99_s": p99,
            "plan_status": "none" if plan is None else plan.status.name,
            "plan_margin": np.nan if plan is None else plan.margin,
        }
        if finished.failure:
            return Finding(ERROR, finished.failure, values)
        if plan is None or age > self._values["plan_timeout"]:
            return Finding(WARN, "no new plan: nothing is proposed", values)
        return Finding(OK, "proposes", values)

    @property
    def _frame_id(self) -> str:
        interface = self._robot.interface
        return interface.odometry_frame_id if isinstance(interface, BaseInterface) else "odom"


def _solve(job: _Job) -> _Solved:
    started = time.monotonic()
    plan: Plan = job.planner.plan(job.observation)
    return _Solved(
        plan.states[0].numpy(),
        plan.actions[0].numpy(),
        job.stamp_ns,
        job.seen_at,
        time.monotonic() - started,
        float(plan.certificate.margin),
        Status(int(plan.certificate.status)),
    )


def main() -> int:
    """Run the node."""
    torch.set_num_threads(1)
    return spin_node(PlannerNode)


if __name__ == "__main__":
    sys.exit(main())

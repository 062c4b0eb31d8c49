"""Plans as messages: the way of a base, the trajectory of an arm."""

import array

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from numpy.typing import NDArray
from rclpy.duration import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from safectl.errors import AdapterError
from safectl_ros.adapters import ArmInterface
from safectl_ros.adapters.stamps import to_time
from safectl_ros.process import Message


def path_message(states: NDArray[np.float32], stamp_ns: int, frame_id: str) -> Path:
    """Write the states of a base: shape (H, 3), x, y [m] and heading [rad]."""
    path = Path()
    path.header.frame_id, path.header.stamp = frame_id, to_time(stamp_ns)
    for x, y, heading in states.astype(np.float64).tolist():
        pose = PoseStamped(header=path.header)
        pose.pose.position.x, pose.pose.position.y = x, y
        pose.pose.orientation.z = float(np.sin(0.5 * heading))
        pose.pose.orientation.w = float(np.cos(0.5 * heading))
        path.poses.append(pose)
    return path


def trajectory_message(
    positions: NDArray[np.float32], joints: tuple[str, ...], period: float, stamp_ns: int
) -> JointTrajectory:
    """Write joint positions of shape (H, nu), one period apart [s]."""
    points = []
    for step, row in enumerate(positions.astype(np.float64)):
        since = Duration(seconds=(step + 1) * period).to_msg()
        point = JointTrajectoryPoint(
            positions=array.array("d", row.tobytes()), time_from_start=since
        )
        points.append(point)
    message = JointTrajectory(joint_names=list(joints), points=points)
    message.header.stamp = to_time(stamp_ns)
    return message


def goal_of_pose(message: PoseStamped, frame_id: str) -> tuple[float, float]:
    """Read the position of a goal [m].

    Raises:
        AdapterError: If it is given in another frame than that of the odometry, or not finite.
    """
    if message.header.frame_id not in ("", frame_id):
        raise AdapterError(
            "goal_pose",
            f"is in the frame {message.header.frame_id!r}, expected {frame_id!r}",
            "transform it before",
        )
    goal = (message.pose.position.x, message.pose.position.y)
    if not np.isfinite(goal).all():
        raise AdapterError("goal_pose", "is not finite", "send a position in metres")
    return goal


def goal_of_trajectory(message: Message, interface: ArmInterface) -> tuple[float, ...]:
    """Read the joint positions of a goal, in the order of the commands.

    Raises:
        AdapterError: As `ArmInterface.command_to_array`, or if it is not finite.
    """
    goal = interface.command_to_array(message)
    if not np.isfinite(goal).all():
        raise AdapterError("goal", "is not finite", "send one position per joint")
    return tuple(goal.tolist())

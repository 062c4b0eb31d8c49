"""A mobile base: velocity commands and odometry, axes and frames by REP 103 and REP 105."""

import math
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry

from safectl.errors import AdapterError, UnknownNameError
from safectl.spec import Spec
from safectl_ros.adapters.interface import Array, Message, require_type, sizes_in_si
from safectl_ros.adapters.stamps import from_time, to_time

COMMANDS = ("speed", "lateral_speed", "turn_rate")
"""Forward and leftward speed [m/s] and turn rate [rad/s], of the base in its own frame."""

STATES = ("x", "y", "heading", "heading_cos", "heading_sin", *COMMANDS)
"""Position [m] and heading [rad] in the odometry frame, then measured velocities in the base's."""

_UNIT_TOLERANCE = 1e-2  # drivers send quaternions in float32 and worse; a zero one is caught


@dataclass(frozen=True, slots=True)
class BaseInterface:
    """`TwistStamped` or `Twist` in, `Odometry` out; signals are found by their names.

    Fields that the specification does not name are ignored when read and zero when written.

    Raises:
        UnknownNameError: If the specification names something that is in no such message.
    """

    spec: Spec
    is_stamped: bool = True
    frame_id: str = "base_link"
    odometry_frame_id: str = "odom"
    command_topic: str = "cmd_vel"
    state_topic: str = "odom"

    def __post_init__(self) -> None:
        for signals, known in ((self.spec.action, COMMANDS), (self.spec.observation, STATES)):
            for signal in signals:
                if signal.name not in known:
                    raise UnknownNameError("signal of a base", signal.name, known=known)

    @property
    def safe_topic(self) -> str:
        """Topic that drives the robot."""
        return f"{self.command_topic}_safe"

    @property
    def command_type(self) -> type:
        """`TwistStamped`, or `Twist` without stamps."""
        return TwistStamped if self.is_stamped else Twist

    @property
    def state_type(self) -> type:
        """`Odometry`."""
        return Odometry

    def command_to_array(self, message: Message) -> Array:
        """Read a command, shape (nu,).

        Raises:
            AdapterError: If the message is of another type or in another frame.
        """
        require_type(message, self.command_type)
        twist = message
        if self.is_stamped:
            _require_frame(message.header.frame_id, self.frame_id, "TwistStamped")
            twist = message.twist
        values = _velocities(twist)
        command = [values[signal.name] for signal in self.spec.action]
        return np.array(command, dtype=np.float64) / sizes_in_si(self.spec.action)

    def array_to_command(self, command: Array, stamp_ns: int) -> Message:
        """Write a command of shape (nu,) in the frame of the base."""
        values = command * sizes_in_si(self.spec.action)
        names = [signal.name for signal in self.spec.action]
        twist = Twist()
        _write_velocities(twist, dict(zip(names, values.tolist(), strict=True)))
        if not self.is_stamped:
            return twist
        message = TwistStamped(twist=twist)
        message.header.stamp, message.header.frame_id = to_time(stamp_ns), self.frame_id
        return message

    def state_to_array(self, message: Message) -> Array:
        """Read a state, shape (nx,).

        Raises:
            AdapterError: If the message is of another type or frame or its quaternion is no
                rotation.
        """
        require_type(message, Odometry)
        _require_frame(message.header.frame_id, self.odometry_frame_id, "Odometry")
        pose = message.pose.pose
        heading = _heading(pose.orientation)
        values = {"x": pose.position.x, "y": pose.position.y, "heading": heading}
        values |= {"heading_cos": math.cos(heading), "heading_sin": math.sin(heading)}
        values |= _velocities(message.twist.twist)
        state = [values[signal.name] for signal in self.spec.observation]
        return np.array(state, dtype=np.float64) / sizes_in_si(self.spec.observation)

    def array_to_state(self, state: Array, stamp_ns: int) -> Message:
        """Write a state of shape (nx,)."""
        numbers = (state * sizes_in_si(self.spec.observation)).tolist()
        names = [signal.name for signal in self.spec.observation]
        values = dict(zip(names, numbers, strict=True))
        message = Odometry(child_frame_id=self.frame_id)
        message.header.stamp, message.header.frame_id = to_time(stamp_ns), self.odometry_frame_id
        pose = message.pose.pose
        pose.position.x, pose.position.y = values.get("x", 0.0), values.get("y", 0.0)
        sine, cosine = values.get("heading_sin", 0.0), values.get("heading_cos", 1.0)
        heading = values.get("heading", math.atan2(sine, cosine))
        half = 0.5 * math.remainder(heading, math.tau) if math.isfinite(heading) else math.nan
        pose.orientation.z, pose.orientation.w = math.sin(half), math.cos(half)
        _write_velocities(message.twist.twist, values)
        return message

    def stamp_of(self, message: Message) -> int | None:
        """Return the header's stamp [ns]; a `Twist` has none."""
        return None if isinstance(message, Twist) else from_time(message.header.stamp)


def _velocities(twist: Twist) -> dict[str, float]:
    values = (twist.linear.x, twist.linear.y, twist.angular.z)
    return dict(zip(COMMANDS, values, strict=True))


def _write_velocities(twist: Twist, values: dict[str, float]) -> None:
    twist.linear.x = values.get("speed", 0.0)
    twist.linear.y = values.get("lateral_speed", 0.0)
    twist.angular.z = values.get("turn_rate", 0.0)


def _heading(rotation: Message) -> float:
    """Return the rotation about the vertical axis; a NaN in the quaternion gives NaN."""
    x, y, z, w = rotation.x, rotation.y, rotation.z, rotation.w
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if abs(norm - 1.0) > _UNIT_TOLERANCE:
        raise AdapterError(
            "Odometry",
            f"has a quaternion of length {norm:.3g}",
            "publish a rotation: x^2 + y^2 + z^2 + w^2 = 1",
        )
    return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def _require_frame(frame_id: str, expected: str, message: str) -> None:
    if frame_id not in ("", expected):
        raise AdapterError(
            message,
            f"is in the frame {frame_id!r}, expected {expected!r}",
            "transform it before, or name the frame in the robot's interface",
        )

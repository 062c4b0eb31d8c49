"""An arm: joint commands and joint states, matched by name and never by position in a list."""

import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from safectl.errors import AdapterError, RangeError
from safectl.spec import Signal, Spec
from safectl_ros.adapters.interface import Array, Message, require_size, require_type, sizes_in_si
from safectl_ros.adapters.stamps import from_time, to_time

SUFFIXES = {"_velocity": "velocity", "_torque": "effort"}
"""A signal is named after its joint; a suffix says that it is not its position."""

_TRAJECTORY_FIELD = {"position": "positions", "velocity": "velocities", "effort": "effort"}


@dataclass(frozen=True, slots=True)
class ArmInterface:
    """`JointTrajectory` with one point, or `Float64MultiArray`, in; `JointState` out.

    Signals: `<joint>` is a position [rad or m], `<joint>_velocity` a velocity, `<joint>_torque` an
    effort. All commands are of one of these sorts. Joints of a state that the specification does
    not name are ignored; a command names exactly the joints of the specification, in any order. A
    `Float64MultiArray` has no names: its numbers are in the specification's order.

    Raises:
        RangeError: If the commands are of several sorts.
    """

    spec: Spec
    is_stamped: bool = True
    command_topic: str = "joint_command"
    state_topic: str = "joint_states"

    def __post_init__(self) -> None:
        sorts = {_sort(signal)[1] for signal in self.spec.action}
        if len(sorts) > 1:
            raise RangeError("commands of an arm", value=sorted(sorts), expected="one sort only")

    @property
    def safe_topic(self) -> str:
        """Topic that drives the robot."""
        return f"{self.command_topic}_safe"

    @property
    def command_type(self) -> type:
        """`JointTrajectory`, or `Float64MultiArray` without names and stamps."""
        return JointTrajectory if self.is_stamped else Float64MultiArray

    @property
    def state_type(self) -> type:
        """`JointState`."""
        return JointState

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the commanded joints, in the order of the specification."""
        return tuple(_sort(signal)[0] for signal in self.spec.action)

    def command_to_array(self, message: Message) -> Array:
        """Read a command, shape (nu,).

        Raises:
            AdapterError: If the message is of another type, has other joints, or not one number
                for each in its only point.
        """
        require_type(message, self.command_type)
        if not self.is_stamped:
            require_size("Float64MultiArray", message.data, self.spec.nu)
            numbers = np.array(message.data, dtype=np.float64)
            return numbers / sizes_in_si(self.spec.action)
        names = list(message.joint_names)
        if sorted(names) != sorted(self.joints):
            raise AdapterError(
                "JointTrajectory",
                f"names the joints {names}, expected {list(self.joints)} in any order",
                "command every joint of the specification once and no other",
            )
        if len(message.points) != 1:
            raise AdapterError(
                "JointTrajectory",
                f"holds {len(message.points)} points, expected 1",
                "send the next point only",
            )
        field = self._field
        values = getattr(message.points[0], field)
        require_size(f"JointTrajectory.{field}", values, self.spec.nu)
        by_joint = dict(zip(names, values, strict=True))
        numbers = np.array([by_joint[joint] for joint in self.joints], dtype=np.float64)
        return numbers / sizes_in_si(self.spec.action)

    def array_to_command(self, command: Array, stamp_ns: int) -> Message:
        """Write a command of shape (nu,)."""
        numbers = array.array("d", (command * sizes_in_si(self.spec.action)).tobytes())
        if not self.is_stamped:
            return Float64MultiArray(data=numbers)
        point = JointTrajectoryPoint(**{self._field: numbers})
        message = JointTrajectory(joint_names=list(self.joints), points=[point])
        message.header.stamp = to_time(stamp_ns)
        return message

    def state_to_array(self, message: Message) -> Array:
        """Read a state, shape (nx,).

        Raises:
            AdapterError: If the message is of another type, lacks a joint or one of its numbers, or
                names a joint twice.
        """
        require_type(message, JointState)
        names = list(message.name)
        if len(set(names)) != len(names):
            raise AdapterError("JointState", f"names a joint twice: {names}", "name each once")
        place = {name: index for index, name in enumerate(names)}
        numbers = [self._measured(message, place, signal) for signal in self.spec.observation]
        return np.array(numbers, dtype=np.float64) / sizes_in_si(self.spec.observation)

    def array_to_state(self, state: Array, stamp_ns: int) -> Message:
        """Write a state of shape (nx,); a sort that no signal names stays empty."""
        signals = [_sort(signal) for signal in self.spec.observation]
        names = list(dict.fromkeys(joint for joint, _ in signals))
        numbers = (state * sizes_in_si(self.spec.observation)).tolist()
        message = JointState(name=names)
        message.header.stamp = to_time(stamp_ns)
        for sort in dict.fromkeys(sort for _, sort in signals):
            known = {
                joint: number
                for (joint, kind), number in zip(signals, numbers, strict=True)
                if kind == sort
            }
            values = array.array("d", [known.get(name, 0.0) for name in names])
            setattr(message, sort, values)
        return message

    def stamp_of(self, message: Message) -> int | None:
        """Return the header's stamp [ns]; a `Float64MultiArray` has none."""
        unstamped = isinstance(message, Float64MultiArray)
        return None if unstamped else from_time(message.header.stamp)

    @property
    def _field(self) -> str:
        return _TRAJECTORY_FIELD[_sort(self.spec.action[0])[1]]

    def _measured(self, message: JointState, place: dict[str, int], signal: Signal) -> float:
        joint, sort = _sort(signal)
        if joint not in place:
            raise AdapterError(
                "JointState",
                f"lacks the joint {joint!r}; it names {sorted(place)}",
                "publish every joint of the specification in one message",
            )
        values: Sequence[float] = getattr(message, sort)
        require_size(f"JointState.{sort}", values, len(place))
        return float(values[place[joint]])


def _sort(signal: Signal) -> tuple[str, str]:
    """Split a signal's name into its joint and `position`, `velocity` or `effort`."""
    for suffix, sort in SUFFIXES.items():
        if signal.name.endswith(suffix):
            return signal.name.removesuffix(suffix), sort
    return signal.name, "position"

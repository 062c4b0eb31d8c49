"""Any robot whose state and command are plain rows of numbers."""

import array
from dataclasses import dataclass

import numpy as np
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout

from safectl.spec import Spec
from safectl_ros.adapters.interface import Array, Message, require_size, require_type
from safectl_ros.adapters.stamps import LATEST_NS

STAMP_DIGITS = len(str(LATEST_NS))
"""A longer label is no instant of the ROS clock."""


@dataclass(frozen=True, slots=True)
class VectorInterface:
    """`Float64MultiArray` both ways, numbers in the units of the specification.

    The message has no header: the label of its first dimension holds the stamp in nanoseconds.
    """

    spec: Spec
    command_topic: str = "action"
    state_topic: str = "observation"

    @property
    def safe_topic(self) -> str:
        """Topic that drives the robot."""
        return f"{self.command_topic}_safe"

    @property
    def command_type(self) -> type:
        """`Float64MultiArray`."""
        return Float64MultiArray

    @property
    def state_type(self) -> type:
        """`Float64MultiArray`."""
        return Float64MultiArray

    def command_to_array(self, message: Message) -> Array:
        """Read a command, shape (nu,).

        Raises:
            AdapterError: If the message is of another type or size.
        """
        return _read(message, self.spec.nu)

    def array_to_command(self, command: Array, stamp_ns: int) -> Message:
        """Write a command of shape (nu,)."""
        return numbers_to_message(command, stamp_ns)

    def state_to_array(self, message: Message) -> Array:
        """Read a state, shape (nx,).

        Raises:
            AdapterError: If the message is of another type or size.
        """
        return _read(message, self.spec.nx)

    def array_to_state(self, state: Array, stamp_ns: int) -> Message:
        """Write a state of shape (nx,)."""
        return numbers_to_message(state, stamp_ns)

    def stamp_of(self, message: Message) -> int | None:
        """Return the stamp in the label [ns], none where the label is no number."""
        return label_stamp(message)


def numbers_to_message(numbers: Array, stamp_ns: int) -> Float64MultiArray:
    """Write a row of numbers with a stamp."""
    size = len(numbers)
    dimension = MultiArrayDimension(label=str(stamp_ns), size=size, stride=size)
    data = array.array("d", np.asarray(numbers, dtype=np.float64).tobytes())
    return Float64MultiArray(layout=MultiArrayLayout(dim=[dimension]), data=data)


def label_stamp(message: Float64MultiArray) -> int | None:
    """Return the stamp that `numbers_to_message` wrote [ns], none where there is none."""
    label = message.layout.dim[0].label if message.layout.dim else ""
    if not (label.isascii() and label.isdigit() and len(label) <= STAMP_DIGITS):
        return None
    stamp_ns = int(label)
    return stamp_ns if stamp_ns <= LATEST_NS else None


def _read(message: Message, size: int) -> Array:
    require_type(message, Float64MultiArray)
    require_size("Float64MultiArray", message.data, size)
    return np.array(message.data, dtype=np.float64)

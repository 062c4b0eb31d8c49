"""What a robot's topics carry, whatever their message types."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float64

from safectl.errors import AdapterError
from safectl.spec import Signal, Spec

Message: TypeAlias = Any
"""A ROS message; rosidl generates them without type annotations."""

Array: TypeAlias = Float64[np.ndarray, " n"]
"""Numbers in the order and units of a specification."""


@runtime_checkable
class Interface(Protocol):
    """The messages of one robot and how they read as arrays.

    Arrays are float64, in the order and units of `spec`. Reading a message refuses wrong types,
    names, sizes and frames with `AdapterError`. NaN and infinity pass through: whoever decides on
    the numbers must see them. Messages carry SI units; a command signal whose unit starts with a
    number, such as `2 rad/s`, is a fraction of that size.
    """

    @property
    def spec(self) -> Spec:
        """Signals of the robot."""
        ...

    @property
    def command_topic(self) -> str:
        """Topic of proposals."""
        ...

    @property
    def safe_topic(self) -> str:
        """Topic that drives the robot."""
        ...

    @property
    def state_topic(self) -> str:
        """Topic of the robot's state."""
        ...

    @property
    def command_type(self) -> type:
        """Message class of commands."""
        ...

    @property
    def state_type(self) -> type:
        """Message class of states."""
        ...

    def command_to_array(self, message: Message) -> Array:
        """Read a command, shape (nu,)."""
        ...

    def array_to_command(self, command: Array, stamp_ns: int) -> Message:
        """Write a command of shape (nu,); the stamp is that of the state it was computed from."""
        ...

    def state_to_array(self, message: Message) -> Array:
        """Read a state, shape (nx,)."""
        ...

    def array_to_state(self, state: Array, stamp_ns: int) -> Message:
        """Write a state of shape (nx,) as of an instant of the ROS clock [ns]."""
        ...

    def stamp_of(self, message: Message) -> int | None:
        """Return the stamp of a command or state [ns], none where the message has none."""
        ...


def require_type(message: Message, expected: type) -> None:
    """Refuse a message of another class.

    Raises:
        AdapterError: If it is one.
    """
    if not isinstance(message, expected):
        raise AdapterError(
            type(message).__name__,
            f"is no {expected.__name__}",
            "use the message type that the robot's interface names",
        )


def require_size(message: str, values: Sequence[float], expected: int) -> None:
    """Refuse a field with another number of entries.

    Raises:
        AdapterError: If it has.
    """
    if len(values) != expected:
        raise AdapterError(
            message,
            f"holds {len(values)} numbers, expected {expected}",
            "publish one number per signal of the specification",
        )


def sizes_in_si(signals: Sequence[Signal]) -> Array:
    """Return what 1 of each signal means in SI units: 2.0 for `2 rad/s`, 1.0 without a number."""
    return np.array([_leading_number(signal.unit) for signal in signals], dtype=np.float64)


def _leading_number(unit: str) -> float:
    number, space, _ = unit.partition(" ")
    try:
        return float(number) if space else 1.0
    except ValueError:
        return 1.0

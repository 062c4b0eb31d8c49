"""Interfaces by name, as parameter files want them."""

from safectl.errors import UnknownNameError
from safectl.spec import Spec
from safectl_ros.adapters.arm import ArmInterface
from safectl_ros.adapters.base import BaseInterface
from safectl_ros.adapters.interface import Interface
from safectl_ros.adapters.vector import VectorInterface

KINDS = ("vector", "base", "arm")
"""Kinds of robots."""


def make_interface(kind: str, spec: Spec, *, is_stamped: bool = True) -> Interface:
    """Build the interface of a robot.

    Args:
        kind: One of `KINDS`.
        spec: Signals of the robot; a base and an arm are matched by signal names.
        is_stamped: False for `Twist` (base) or `Float64MultiArray` (arm) commands.

    Raises:
        UnknownNameError: If there is no such kind, or a base has no such signal.
        RangeError: If the commands of an arm are of several sorts.
    """
    if kind == "vector":
        return VectorInterface(spec)
    if kind == "base":
        return BaseInterface(spec, is_stamped=is_stamped)
    if kind == "arm":
        return ArmInterface(spec, is_stamped=is_stamped)
    raise UnknownNameError("kind of robot", kind, known=KINDS)

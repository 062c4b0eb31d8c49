"""Messages to arrays and back: pure functions, tested without a running graph."""

from safectl.errors import MissingExtra

try:
    from safectl_ros.adapters.arm import ArmInterface
    from safectl_ros.adapters.base import BaseInterface
    from safectl_ros.adapters.interface import Array, Interface
    from safectl_ros.adapters.select import KINDS, make_interface
    from safectl_ros.adapters.vector import VectorInterface
except ModuleNotFoundError as error:
    package = (error.name or "rclpy").partition(".")[0]
    raise MissingExtra(package, "ros") from error

__all__ = [
    "KINDS",
    "ArmInterface",
    "Array",
    "BaseInterface",
    "Interface",
    "VectorInterface",
    "make_interface",
]

"""Instants of the ROS clock as whole nanoseconds."""

from builtin_interfaces.msg import Time

_SECOND = 1_000_000_000


def to_time(stamp_ns: int) -> Time:
    """Write an instant as a message."""
    return Time(sec=stamp_ns // _SECOND, nanosec=stamp_ns % _SECOND)


def from_time(time: Time) -> int | None:
    """Read an instant [ns]; zero means that the publisher set none."""
    stamp_ns = int(time.sec) * _SECOND + int(time.nanosec)
    return stamp_ns or None

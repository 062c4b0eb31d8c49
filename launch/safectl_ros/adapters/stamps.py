"""Instants of the ROS clock as whole nanoseconds."""

from builtin_interfaces.msg import Time

_SECOND = 1_000_000_000

LATEST_NS = 2**31 * _SECOND - 1
"""The latest instant that a message can hold [ns]."""


def to_time(stamp_ns: int) -> Time:
    """Write an instant as a message."""
    return Time(sec=stamp_ns // _SECOND, nanosec=stamp_ns % _SECOND)


def from_time(time: Time) -> int | None:
    """Read an instant [ns]; zero means that the publisher set none.

    A driver whose clock does not run stamps with zero, too: nothing can tell the two apart.
    """
    stamp_ns = int(time.sec) * _SECOND + int(time.nanosec)
    return stamp_ns or None

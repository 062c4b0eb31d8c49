"""Reports by REP 107: named `<node>: <component>`, with the name of the hardware, and levels."""

from collections.abc import Mapping, Sequence

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE
"""Levels; `bytes` in rclpy."""


def make_status(
    name: str, level: bytes, message: str, *, hardware_id: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Build the status of one component.

    Args:
        name: `<node>: <component>`.
        level: `OK`, `WARN`, `ERROR` or `STALE`.
        message: One line.
        hardware_id: The robot.
        values: Figures by name; numbers are written with six significant digits.
    """
    pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticStatus(
        name=name, level=level, message=message, hardware_id=hardware_id, values=pairs
    )


def make_report(stamp: Time, statuses: Sequence[DiagnosticStatus]) -> DiagnosticArray:
    """Put the statuses of one node together."""
    report = DiagnosticArray(status=list(statuses))
    report.header.stamp = stamp
    return report


def worst(levels: Sequence[bytes]) -> bytes:
    """Return the gravest of some levels."""
    return max(levels, default=OK)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

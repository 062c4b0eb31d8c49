"""Reports by REP 107: named `<node>: <component>`, with the name of the hardware, and levels."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

from safectl_ros.qos import DIAGNOSTICS

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE
"""Levels; `bytes` in rclpy."""

_PERIOD_S = 1.0


class Finding(NamedTuple):
    """How a component is: level, one line, and figures by name."""

    level: bytes
    message: str
    values: Mapping[str, object]


class Reporter:
    """Publishes how the one component of a node is, every second and when it is told to.

    Args:
        node: Owns publisher and timer.
        component: Its name after that of the node.
        hardware_id: The robot.
        look: Finds out how it is.
        now: Stamp of a report; the clock of the node without.
    """

    def __init__(
        self,
        node: Node,
        component: str,
        *,
        hardware_id: str,
        look: Callable[[], Finding],
        now: Callable[[], Time] | None = None,
    ) -> None:
        self._name, self._hardware_id = f"{node.get_name()}: {component}", hardware_id
        self._look, self._now = look, now or (lambda: node.get_clock().now().to_msg())
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(_PERIOD_S, self.report, clock=steady)

    def report(self) -> None:
        """Publish it now."""
        level, message, values = self._look()
        status = make_status(
            self._name, level, message, hardware_id=self._hardware_id, values=values
        )
        self._publisher.publish(make_report(self._now(), [status]))


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

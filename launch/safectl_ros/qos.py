"""Quality of service by purpose.

Outputs offer a deadline and a liveliness lease; inputs request neither, because a publisher that
does not offer them, such as teleoperation or Nav2, would then not connect. Only the last link
before the motors requests the deadline: what may drive it must promise to be heard.
"""

from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)

_DEADLINE_PERIODS = 3.0
_LEASE_PERIODS = 5.0

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Proposals: only the newest counts."""

SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Subscriptions to sensor data; connects to every publisher."""

STATE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
"""State in lock-step, where a lost message would be waited for; also serves `SENSOR` readers."""

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
"""The last value reaches who comes later."""

ESTOP = QoSProfile(
    depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
"""The e-stop: the last value reaches who comes later."""

WATCHED_ESTOP = QoSProfile(
    history=HistoryPolicy.KEEP_ALL,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Whoever obeys the e-stop hears every message that reached its process: its queue overwrites no
press. What is lost before that, while the process is stopped, the guard minds itself."""

DIAGNOSTICS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Reports to people and recorders."""


def safe_command(rate_hz: float) -> QoSProfile:
    """Offer of whoever drives a robot: a command at least every three periods.

    Args:
        rate_hz: Rate at which commands are published [Hz].
    """
    return QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        deadline=Duration(seconds=_DEADLINE_PERIODS / rate_hz),
        liveliness=LivelinessPolicy.AUTOMATIC,
        liveliness_lease_duration=Duration(seconds=_LEASE_PERIODS / rate_hz),
    )


def watched_command(rate_hz: float) -> QoSProfile:
    """Request of the last link: connects only to publishers that offer `safe_command` or better.

    Args:
        rate_hz: Lowest rate of commands that the robot accepts [Hz].
    """
    deadline = Duration(seconds=_DEADLINE_PERIODS / rate_hz)
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, deadline=deadline)


def deadline_s(rate_hz: float) -> float:
    """Return the silence after which the last link stops by itself [s]."""
    return _DEADLINE_PERIODS / rate_hz

"""When a guard stops and when it goes on."""

from dataclasses import dataclass

from safectl.errors import RangeError


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """When the guard stops and when it goes on.

    Raises:
        RangeError: If a time is negative, or one that must be positive is zero.
    """

    cmd_timeout: float = 0.2
    """Age from which on a command is stale [s], > 0."""
    state_timeout: float = 0.2
    """Age from which on an observation is stale [s], > 0."""
    estop_timeout: float = 0.5
    """Age from which on a silent e-stop counts as pressed [s], > 0."""
    use_estop: bool = True
    """Whether the robot has an e-stop topic."""
    stamp_tolerance: float = 0.5
    """How far a stamp may be from the time of arrival [s]; 0 switches this check off."""
    recover_s: float = 0.5
    """How long observations must be good before the guard leaves STOP [s]."""
    latch_stop: bool = False
    """Whether STOP is left by a reset only."""
    min_dwell_s: float = 0.1
    """Shortest time in BACKUP or STOP after a loss, and in MODIFIED after a correction [s]."""
    reentry_s: float = 1.0
    """Time in which a command may cross its whole range after a stop [s], > 0."""
    stuck_s: float = 5.0
    """Time after which a robot that is commanded to move and rests is reported [s], > 0."""

    def __post_init__(self) -> None:
        for name in ("cmd_timeout", "state_timeout", "estop_timeout", "reentry_s", "stuck_s"):
            if not getattr(self, name) > 0.0:
                raise RangeError(name, value=getattr(self, name), expected="a number > 0 [s]")
        for name in ("stamp_tolerance", "recover_s", "min_dwell_s"):
            if not getattr(self, name) >= 0.0:
                raise RangeError(name, value=getattr(self, name), expected="a number >= 0 [s]")

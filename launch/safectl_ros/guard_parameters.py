"""The parameters of the guard, and which changes of them tighten it."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from safectl_ros.guard_settings import GuardSettings
from safectl_ros.parameters import ROBOT, SEES_STATE, Parameter

STEADY, ROS = "steady", "ros"

PARAMETERS = (
    ROBOT,
    Parameter(
        "safeguard", "", "TOML file, or folder of a training", read_only=True, is_required=True
    ),
    SEES_STATE,
    Parameter("autostart", True, "configure and activate without being asked", read_only=True),
    Parameter("rate_hz", 50.0, "output rate [Hz]", low=1.0, high=500.0, read_only=True),
    Parameter(
        "filter_budget_s",
        0.01,
        "longest wait for the filter [s]",
        low=1e-4,
        high=10.0,
        read_only=True,
    ),
    Parameter(
        "watchdog_clock",
        STEADY,
        "clock of all timeouts; ros for lock-step, where each command is answered and nothing else",
        choices=(STEADY, ROS),
        read_only=True,
    ),
    Parameter("cmd_timeout", 0.2, "age of a stale command [s]", low=0.01, high=60.0),
    Parameter("state_timeout", 0.2, "age of a stale observation [s]", low=0.01, high=60.0),
    Parameter("estop_timeout", 0.5, "silence of the e-stop [s]", low=0.01, high=60.0),
    Parameter("use_estop", True, "whether the robot has an e-stop topic", read_only=True),
    Parameter(
        "stamp_tolerance",
        0.5,
        "distance of a stamp from its arrival [s]; 0 switches the check off",
        low=0.0,
        high=60.0,
    ),
    Parameter("recover_s", 0.5, "good observations before STOP ends [s]", low=0.0, high=60.0),
    Parameter("latch_stop", False, "whether STOP ends by a reset only", read_only=True),
    Parameter(
        "min_dwell_s",
        0.1,
        "shortest BACKUP or STOP after a loss, and MODIFIED after a correction [s]",
        low=0.0,
        high=60.0,
    ),
    Parameter(
        "reentry_s",
        1.0,
        "time in which a command may cross its range after a stop [s]",
        low=1e-3,
        high=60.0,
    ),
    Parameter("stuck_s", 5.0, "rest under command that is reported [s]", low=0.1, high=600.0),
    Parameter("stop_pub_s", 0.2, "zeros before the node ends [s]", 0.0, 5.0, read_only=True),
    Parameter("margins_hz", 10.0, "rate of margins and markers [Hz]", 0.1, 100.0, read_only=True),
    Parameter(
        "limit_shares",
        [1.0],
        "share of the robot's limits that is in force, in (0, 1]; one for all or one per action",
    ),
)

_TIGHTER_BELOW = frozenset(
    {"cmd_timeout", "state_timeout", "estop_timeout", "stamp_tolerance", "stuck_s", "limit_shares"}
)
_TIGHTER_ABOVE = frozenset({"recover_s", "min_dwell_s", "reentry_s"})


def settings_from(values: Mapping[str, Any]) -> GuardSettings:
    """Pick the settings of the state machine out of the values of all parameters."""
    return GuardSettings(**{field.name: values[field.name] for field in fields(GuardSettings)})


def why_looser(name: str, old: Any, new: Any) -> str:  # noqa: ANN401  parameters are of any type
    """Return why a change would loosen an active guard; empty if it does not."""
    if name == "use_sim_time":  # ages of stamps are judged by this clock
        return "the clock cannot be changed while the guard is active; deactivate it first"
    if name not in _TIGHTER_BELOW | _TIGHTER_ABOVE:
        return ""
    before, after = np.broadcast_arrays(np.atleast_1d(old), np.atleast_1d(new))
    if name == "stamp_tolerance":  # zero is no check at all
        before, after = (np.where(side == 0.0, np.inf, side) for side in (before, after))
    is_looser = (before < after) if name in _TIGHTER_BELOW else (before > after)
    if not is_looser.any():
        return ""
    return f"{name} may only be tightened while the guard is active; deactivate it first"

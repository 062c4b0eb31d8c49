"""Which change of each parameter loosens an active guard."""

from dataclasses import fields

import pytest

from safectl_ros.guard_parameters import PARAMETERS, why_looser
from safectl_ros.guard_settings import GuardSettings

SMALLER = ("cmd_timeout", "state_timeout", "estop_timeout", "stamp_tolerance", "stuck_s")
LARGER = ("recover_s", "min_dwell_s", "reentry_s")


@pytest.mark.parametrize("name", SMALLER)
def test_times_until_a_stop_may_only_shrink(name):
    assert "may only be tightened" in why_looser(name, 0.2, 0.3)
    assert why_looser(name, 0.2, 0.1) == why_looser(name, 0.2, 0.2) == ""


@pytest.mark.parametrize("name", LARGER)
def test_times_until_going_on_may_only_grow(name):
    assert "may only be tightened" in why_looser(name, 0.2, 0.1)
    assert why_looser(name, 0.2, 0.3) == why_looser(name, 0.2, 0.2) == ""


def test_every_setting_is_ruled_or_fixed():
    fixed = {parameter.name for parameter in PARAMETERS if parameter.read_only}
    assert {field.name for field in fields(GuardSettings)} == fixed & {
        "use_estop",
        "latch_stop",
    } | {*SMALLER, *LARGER}

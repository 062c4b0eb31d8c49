"""The long run in short: a minute at 50 Hz."""

import pytest

from safectl_ros.bench.soak import GROWTH_MB, run


@pytest.mark.slow
def test_a_minute_at_50_hz_keeps_its_promises(ros_domain):
    result = run(60.0)
    assert result.violations == 0
    assert result.exit_code == 0
    assert result.leftovers == ()
    assert max(result.growth_mb.values()) < GROWTH_MB
    assert result.outputs > 2000  # a loaded machine may delay

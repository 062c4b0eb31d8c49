"""The pseudo-lidar against hand-made cases and against the loop of Safety-Gym."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safectl_envs.lidar import pseudo_lidar

BINS, REACH = 16, 3.0
ROUNDING = 1e-5  # float32: the angle in bins is at most 16, its place in a bin loses four digits


def scan(point, heading=0.0):
    relative = torch.tensor([[point]], dtype=torch.float32)
    return pseudo_lidar(relative, torch.tensor([heading]), bins=BINS, reach=REACH)[0]


def reference(point, heading):
    """Safety-Gym's `obs_lidar_pseudo` for one object, written from its description."""
    distance = math.hypot(*point)
    size = 2.0 * math.pi / BINS
    angle = (math.atan2(point[1], point[0]) - heading) % (2.0 * math.pi)
    angle = 0.0 if angle >= 2.0 * math.pi else angle  # what the remainder of a tiny negative is
    index = int(angle / size) % BINS
    closeness = max(0.0, REACH - distance) / REACH
    alias = (angle - index * size) / size
    bins = [0.0] * BINS
    bins[index] = closeness
    bins[(index + 1) % BINS] = alias * closeness
    bins[(index - 1) % BINS] = (1.0 - alias) * closeness
    return torch.tensor(bins)


def test_an_object_in_the_middle_of_a_bin_shows_half_in_both_neighbours():
    angle = 2.5 * 2.0 * math.pi / BINS
    expected = torch.zeros(BINS)
    expected[1:4] = torch.tensor([0.25, 0.5, 0.25])
    seen = scan((1.5 * math.cos(angle), 1.5 * math.sin(angle)))
    torch.testing.assert_close(seen, expected, rtol=0.0, atol=ROUNDING)


def test_an_object_straight_ahead_shows_in_the_first_and_the_last_bin():
    seen = scan((1.5, 0.0))
    torch.testing.assert_close(seen[[0, 15]], torch.tensor([0.5, 0.5]), rtol=0.0, atol=ROUNDING)
    assert float(seen[1:15].sum()) == pytest.approx(0.0, abs=ROUNDING)


def test_the_heading_turns_the_bins():
    torch.testing.assert_close(
        scan((0.0, 1.5), heading=0.5 * math.pi), scan((1.5, 0.0)), rtol=0.0, atol=ROUNDING
    )


def test_beyond_the_reach_nothing_shows():
    assert float(scan((3.1, 0.0)).abs().max()) == 0.0


def test_at_the_robot_the_closeness_is_one():
    assert float(scan((0.0, 0.0)).max()) == 1.0


@settings(max_examples=200, deadline=None)
@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0), st.floats(-30.0, 30.0))
def test_it_equals_the_loop_of_safety_gym(x, y, heading):
    x, y, heading = (float(torch.tensor(number)) for number in (x, y, heading))
    # At the border of two bins both formulas show (1, 1), but rounding may choose the other bin.
    torch.testing.assert_close(
        scan((x, y), heading), reference((x, y), heading), rtol=0.0, atol=1e-4
    )


def test_several_objects_show_the_largest_closeness_of_each_bin():
    draw = torch.Generator().manual_seed(0)
    relative, heading = torch.randn(50, 4, 2, generator=draw), torch.randn(50, generator=draw)
    together = pseudo_lidar(relative, heading, bins=BINS, reach=REACH)
    alone = [
        pseudo_lidar(relative[:, index : index + 1], heading, bins=BINS, reach=REACH)
        for index in range(4)
    ]
    torch.testing.assert_close(together, torch.stack(alone).amax(0), rtol=0.0, atol=ROUNDING)


def test_without_objects_nothing_shows():
    nothing = pseudo_lidar(torch.zeros(3, 0, 2), torch.zeros(3), bins=BINS, reach=REACH)
    assert torch.equal(nothing, torch.zeros(3, BINS))

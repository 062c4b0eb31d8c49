"""Specifications in physical units have the same values and scaled gradients when normalised."""

import cvxpy as cp
import pytest
import torch

from safectl.barriers import (
    Discs,
    Moving,
    Superellipse,
    box,
    linearise,
    roof,
    speed_limit,
)
from safectl.errors import NonFiniteError, RangeError
from safectl.planners import Normaliser, Specification, gaussian_normaliser, limits_normaliser
from safectl.safeguards.convex import stated_barrier
from safectl.solve.convex import ConvexSet
from tests.finite_differences import TOLERANCE, jacobian


def normaliser() -> Normaliser:
    low, high = torch.tensor([0.4, 0.45, -5.2, -5.0]), torch.tensor([7.2, 10.2, 5.2, 5.1])
    return limits_normaliser(torch.stack([low, high]).double())


def stated() -> object:
    place = cp.Variable(2)
    constraints = [cp.norm1(place - 3.0) <= 4.0]
    return stated_barrier(
        ConvexSet(place, {}, constraints, low=[0.0, 0.0], high=[8.0, 11.0]), (0, 1)
    )


BARRIERS = {
    "ellipse": lambda: Superellipse((4.5, 5.3), (1.0, 1.2)),
    "superellipse": lambda: Superellipse((1.5, 4.8), (1.0, 0.8), exponent=4.0),
    "power": lambda: Superellipse((1.5, 4.8), (1.0, 0.8), exponent=4.0, is_power=True),
    "inside": lambda: Superellipse((4.0, 5.0), (3.5, 5.0), exponent=4.0, inside=True),
    "discs": lambda: Discs(torch.tensor([[2.0, 3.0], [5.0, 6.0]]), 0.7),
    "box": lambda: box((0.5, 0.5), (7.0, 10.0), positions=(0, 1)),
    "speed": lambda: speed_limit(3.0, velocities=(2, 3)),
    "roof": lambda: roof(6.0, position=0, velocity=2, lookahead_s=0.1),
    "moving": lambda: Moving(Superellipse((2.0, 3.0), (1.0, 1.0)), crossing),
    "stated in CVXPY": stated,
}


def crossing(time: torch.Tensor) -> torch.Tensor:
    return torch.stack([0.5 * time, torch.sin(time)], dim=-1)


@pytest.mark.filterwarnings("ignore:.*not known to be convex")
@pytest.mark.parametrize("name", BARRIERS)
def test_value_and_gradient_are_the_same_in_normalised_coordinates(name):
    barrier = BARRIERS[name]()
    specification = Specification({name: barrier}, normaliser(), coordinates=(0, 1, 2, 3))
    generator = torch.Generator().manual_seed(0)
    state = torch.rand(50, 4, dtype=torch.float64, generator=generator) * 2.0 - 1.0
    time = torch.rand(50, dtype=torch.float64, generator=generator) * 3.0
    found = specification.linearise(state, time)
    physical = specification.physical(state, time)
    torch.testing.assert_close(found.value.T, barrier.value(physical))
    slope = jacobian(lambda z: specification.linearise(z, time).value.T, state)
    # Relative to the largest entry, because differences of a power round by its largest value.
    size = max(1.0, float(slope.abs().max()))
    expected = slope.transpose(0, 1)
    torch.testing.assert_close(found.gradient, expected, atol=TOLERANCE * size, rtol=0.0)


@pytest.mark.parametrize("name", ["ellipse", "superellipse", "power", "discs"])
def test_stacked_shapes_agree_with_the_barriers_themselves(name):
    barrier, scale = BARRIERS[name](), normaliser()
    specification = Specification({name: barrier, "other": BARRIERS["ellipse"]()}, scale)
    state = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = specification.linearise(state)
    value, gradient = linearise(barrier, scale.unnormalise(state))
    m = value.shape[1]
    torch.testing.assert_close(found.value[:m].T, value)
    expected = gradient[:, :, :2] * scale.scale[:2]
    torch.testing.assert_close(found.gradient[:m].transpose(0, 1), expected)


def test_the_gradient_at_a_centre_points_out_of_the_obstacle():
    scale = normaliser()
    specification = Specification({"ellipse": BARRIERS["ellipse"]()}, scale)
    centre = scale.normalise(torch.tensor([[4.5, 5.3, 0.0, 0.0]], dtype=torch.float64))
    found = specification.linearise(centre)
    assert float(found.value) == pytest.approx(-1.0)
    assert float(found.gradient.norm()) > 0.1


@pytest.mark.filterwarnings("ignore:.*not known to be convex")
@pytest.mark.parametrize("name", BARRIERS)
def test_no_point_of_a_segment_lies_below_its_bound(name):
    barrier = BARRIERS[name]()
    specification = Specification({name: barrier}, normaliser())
    generator = torch.Generator().manual_seed(2)
    ends = 8.0 * torch.rand(100, 2, 5, dtype=torch.float64, generator=generator)
    if name in ("moving",):  # only sampled, so nothing is promised between the samples
        ends[:, 1] = ends[:, 0] + 1e-3
    bound = specification.segment_values(ends)
    share = torch.linspace(0.0, 1.0, 501, dtype=torch.float64).reshape(1, -1, 1)
    points = ends[:, :1] + share * (ends[:, 1:] - ends[:, :1])
    values = barrier.value(points.flatten(0, 1)).reshape(100, 501, -1).amin(1)
    assert bool((values >= bound - 1e-3 * (name == "moving") - 1e-9).all())


def test_a_concave_barrier_warns():
    with pytest.warns(UserWarning, match="room: not known to be convex"):
        Specification({"room": BARRIERS["inside"]()}, normaliser())


def test_coordinates_outside_of_the_observation_are_refused():
    with pytest.raises(RangeError, match="entries 0 to 3"):
        Specification({}, normaliser(), coordinates=(0, 4))


def test_normalisers_invert_and_report_what_a_clip_would_hide():
    rows = torch.randn(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows[:, 2] = 5.0  # never changes
    for make in (limits_normaliser, gaussian_normaliser):
        scale = make(rows)
        torch.testing.assert_close(scale.unnormalise(scale.normalise(rows)), rows)
    limits = limits_normaliser(rows)
    outside = torch.tensor([[1.5, -0.5, 0.0]])
    assert limits.would_clip(outside).tolist() == [[True, False, False]]
    assert not gaussian_normaliser(rows).would_clip(outside).any()


def test_data_with_nan_are_refused():
    rows = torch.zeros(10, 2)
    rows[3, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="1 non-finite"):
        limits_normaliser(rows)

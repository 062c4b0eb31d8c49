import math

import pytest
import torch
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards import Brake, Fallback, StopProfile, decide_stop
from safectl.spec import Signal, Spec
from safectl.types import Status

PERIOD = 0.1
ROUNDING = 1e-6
"""Of float32 numbers of order one."""


def spec(unit: str) -> Spec:
    names = ("x", "y", "vx", "vy")
    return Spec(
        tuple(Signal(name, "m", -9.0, 9.0) for name in names),
        (Signal("a", unit, -1.0, 1.0), Signal("b", unit, -1.0, 1.0)),
        PERIOD,
    )


def row(*state: float, time: float) -> Tensor:
    return torch.tensor([[*state, time]])


def ramp(profile: StopProfile, *state: float, steps: int) -> Tensor:
    times = [row(*state, time=PERIOD * step) for step in range(steps)]
    return torch.cat([profile.action(time) for time in times])


def velocity(deceleration: float = 1.0, scale: tuple[float, float] = (1.0, 1.0)) -> StopProfile:
    limits = [deceleration, deceleration]
    return StopProfile(spec("m/s"), velocities=(2, 3), deceleration=limits, scale=scale)


def test_all_velocities_fall_in_proportion_and_end_together() -> None:
    profile = velocity()
    assert isinstance(profile, Fallback)
    speeds = ramp(profile, 0.0, 0.0, 0.4, -0.2, steps=6)
    expected = torch.tensor([0.3, 0.2, 0.1, 0.0, 0.0, 0.0])
    torch.testing.assert_close(speeds[:, 0], expected)
    torch.testing.assert_close(speeds[:, 1], -0.5 * expected)


def test_the_deceleration_is_never_above_its_bound() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        start = (2.0 * torch.rand(2, generator=generator) - 1.0).tolist()
        speeds = ramp(velocity(0.7), 0.0, 0.0, *start, steps=20)
        changes = torch.cat([torch.tensor([start]), speeds]).diff(dim=0).abs()
        assert changes.max() <= 0.7 * PERIOD + ROUNDING
        assert speeds[-1].abs().max() == 0.0


def test_an_unbounded_deceleration_is_zero_at_once() -> None:
    assert not ramp(velocity(math.inf), 0.0, 0.0, 0.4, -0.2, steps=2).any()


def test_fractions_of_a_speed_are_commanded_as_fractions() -> None:
    speeds = ramp(velocity(scale=(2.0, 4.0)), 0.0, 0.0, 0.4, -0.4, steps=1)
    torch.testing.assert_close(speeds, torch.tensor([[0.15, -0.075]]))


def test_accelerations_bring_a_point_mass_to_rest_exactly() -> None:
    profile = StopProfile(
        spec("m/s^2"), velocities=(2, 3), deceleration=[0.5, 0.5], command="acceleration"
    )
    speeds = torch.tensor([0.32, -0.08])
    for step in range(10):
        action = profile.action(row(0.0, 0.0, 0.32, -0.08, time=PERIOD * step))[0]
        assert action.abs().max() <= 0.5 + ROUNDING
        speeds = speeds + PERIOD * action
    assert speeds.abs().max() <= ROUNDING
    assert profile.is_closed_loop


def test_the_hardest_stop_of_accelerations_is_full_braking() -> None:
    profile = StopProfile(
        spec("m/s^2"), velocities=(2, 3), deceleration=[math.inf] * 2, command="acceleration"
    )
    action = profile.action(row(0.0, 0.0, 0.05, -3.0, time=0.0))
    torch.testing.assert_close(action, torch.tensor([[-0.5, 1.0]]))


def test_positions_end_where_the_ramp_ends_and_stay() -> None:
    profile = StopProfile(
        spec("rad"),
        velocities=(2, 3),
        positions=(0, 1),
        deceleration=[1.0, 1.0],
        command="position",
    )
    places = ramp(profile, 0.1, 0.2, 0.4, 0.0, steps=8)
    torch.testing.assert_close(places[-1], torch.tensor([0.1 + 0.4**2 / 2.0, 0.2]))
    torch.testing.assert_close(places[0, 0], torch.tensor(0.1 + PERIOD * (0.4 + 0.3) / 2.0))
    assert profile.needs_observation


def test_positions_stay_where_they_are_measured_when_the_stop_is_at_once() -> None:
    profile = StopProfile(
        spec("rad"),
        velocities=(2, 3),
        positions=(0, 1),
        deceleration=[math.inf] * 2,
        command="position",
    )
    places = ramp(profile, 0.1, 0.2, 0.4, 0.3, steps=3)
    torch.testing.assert_close(places, torch.tensor([[0.1, 0.2]]).repeat(3, 1))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_row_that_is_not_finite_is_rest(broken: float) -> None:
    assert not velocity().action(row(0.0, 0.0, broken, 0.1, time=0.0)).any()


def test_any_other_fallback_stops_too_and_is_not_told_the_time() -> None:
    brake = Brake(spec("m/s^2"), velocities=(2, 3))
    decision = decide_stop(brake, torch.tensor([[0.0, 0.0, 0.04, 0.0]]), 9.0)
    torch.testing.assert_close(decision.action, torch.tensor([[-0.4, 0.0]]))


def test_a_decision_of_it_is_marked() -> None:
    decision = decide_stop(velocity(), torch.tensor([[0.0, 0.0, 0.4, 0.0]]), 0.0)
    assert decision.certificate.status.tolist() == [Status.FALLBACK]
    torch.testing.assert_close(decision.action, torch.tensor([[0.3, 0.0]]))


def test_it_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ShapeError):
        StopProfile(spec("m/s"), velocities=(2,), deceleration=[1.0, 1.0])
    with pytest.raises(RangeError, match="positive"):
        StopProfile(spec("m/s"), velocities=(2, 3), deceleration=[1.0, 0.0])
    with pytest.raises(RangeError, match="within 0 and 3"):
        StopProfile(spec("m/s"), velocities=(2, 4), deceleration=[1.0, 1.0])
    with pytest.raises(RangeError, match="one index per action"):
        StopProfile(spec("rad"), velocities=(2, 3), deceleration=[1.0, 1.0], command="position")
    with pytest.raises(ShapeError):
        velocity().action(torch.zeros(1, 4))

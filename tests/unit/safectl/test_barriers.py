import math

import pytest
import torch
from torch import Tensor

from safectl.barriers import (
    Discs,
    HalfSpaces,
    Minimum,
    ObservedDiscs,
    RelativeDegreeTwo,
    SoftMinimum,
    Stack,
    StoppingDistance,
    Superellipse,
    box,
    corridor,
    lie_derivatives,
    linearise,
)
from safectl.dynamics import CartPole, Unicycle, double_integrator
from safectl.errors import RangeError, ShapeError
from safectl.types import Barrier
from tests.finite_differences import TOLERANCE, jacobian

NX = 4
TWO_DISCS = Discs(torch.tensor([[0.5, 0.1], [-0.4, 0.8]]), 0.3)
STOPPING = StoppingDistance(
    [-1.0, -2.0],
    [1.0, 1.5],
    braking=1.5,
    period=0.1,
    positions=(0, 1),
    velocities=(2, 3),
)
BARRIERS: dict[str, Barrier] = {
    "half-spaces": HalfSpaces(torch.tensor([[1.0, 2.0], [0.0, -3.0]]), torch.tensor([0.5, 1.0])),
    "box": box([-1.0, -math.inf], [1.0, 2.0], positions=(0, 3)),
    "corridor": corridor((0.1, 0.2), (1.0, 1.0), 0.4),
    "discs": TWO_DISCS,
    "inside a disc": Discs(torch.tensor([[0.5, 0.1]]), 0.3, positions=(1, 2), inside=True),
    "ball": Discs(torch.tensor([[0.5, 0.1, 0.2]]), 0.3, positions=(3, 0, 2)),
    "discs in the state": ObservedDiscs([(2, 3)], 0.2, positions=(0, 1)),
    "discs relative to the robot": ObservedDiscs([(0, 1), (2, 3)], 0.2),
    "ellipse": Superellipse([0.1, 0.2], [0.5, 0.7]),
    "rounded rectangle": Superellipse([0.1, 0.2], [0.5, 0.7], exponent=4.0, positions=(1, 3)),
    "inside a rounded rectangle": Superellipse([0.0, 0.0], [2.0, 1.0], exponent=4.0, inside=True),
    "minimum": Minimum(TWO_DISCS),
    "soft minimum": SoftMinimum(TWO_DISCS, sharpness=5.0),
    "stack": Stack(TWO_DISCS, corridor((0.1, 0.2), (1.0, 1.0), 0.4)),
    "second order": RelativeDegreeTwo(TWO_DISCS, double_integrator(0.1, axes=2), rate=2.0),
    "stopping distance": STOPPING,
}


class ValueOnly:
    def __init__(self, barrier: Barrier) -> None:
        self.barrier = barrier

    def value(self, state: Tensor, /) -> Tensor:
        return self.barrier.value(state)


def states(count: int = 64, nx: int = NX) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return 2.0 * torch.randn(count, nx, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", BARRIERS)
def test_gradient_equals_finite_differences(name: str) -> None:
    barrier, state = BARRIERS[name], states()
    expected = jacobian(barrier.value, state)
    value, gradient = linearise(barrier, state)
    torch.testing.assert_close(value, barrier.value(state))
    torch.testing.assert_close(gradient, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", BARRIERS)
def test_automatic_gradient_equals_the_written_one(name: str) -> None:
    state = states()
    written = linearise(BARRIERS[name], state)
    automatic = linearise(ValueOnly(BARRIERS[name]), state)
    torch.testing.assert_close(automatic.value, written.value)
    torch.testing.assert_close(automatic.gradient, written.gradient)
    assert not automatic.gradient.requires_grad
    assert not automatic.value.requires_grad


@pytest.mark.parametrize("name", BARRIERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_batch_of_one_and_zero(name: str, dtype: torch.dtype) -> None:
    for count in (0, 1):
        value, gradient = linearise(BARRIERS[name], states(count).to(dtype))
        assert value.dtype == gradient.dtype == dtype
        assert gradient.shape == (*value.shape, NX)


@pytest.mark.parametrize("dynamics", [Unicycle(0.1), CartPole(0.1), double_integrator(0.1, axes=2)])
@pytest.mark.parametrize("written", [True, False])
def test_lie_derivatives_equal_the_derivative_along_the_motion(
    dynamics: Unicycle | CartPole, written: bool
) -> None:
    state = states(nx=dynamics.nx)
    barrier: Barrier = TWO_DISCS if written else ValueOnly(TWO_DISCS)
    action = torch.randn(len(state), dynamics.nu, dtype=torch.float64)
    rate = dynamics.drift(state) + (dynamics.gain(state) @ action.unsqueeze(-1)).squeeze(-1)
    time = torch.zeros(len(state), 1, dtype=torch.float64)
    expected = jacobian(lambda t: barrier.value(state + t * rate), time).squeeze(-1)
    lie = lie_derivatives(barrier, dynamics, state)
    found = lie.drift + (lie.gain @ action.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_lie_derivatives_refuse_states_of_another_size() -> None:
    with pytest.raises(ShapeError):
        lie_derivatives(TWO_DISCS, Unicycle(0.1), states(nx=4))


def test_second_barrier_of_a_value_only_barrier_differentiates_twice() -> None:
    dynamics = double_integrator(0.1, axes=2)
    barrier = RelativeDegreeTwo(ValueOnly(TWO_DISCS), dynamics, rate=2.0)
    expected = jacobian(barrier.value, states())
    found = linearise(barrier, states()).gradient
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_second_barrier_meets_the_action_at_once() -> None:
    dynamics = double_integrator(0.1, axes=2)
    first = lie_derivatives(TWO_DISCS, dynamics, states()).gain
    second = lie_derivatives(RelativeDegreeTwo(TWO_DISCS, dynamics, rate=2.0), dynamics, states())
    assert first.abs().max() == 0.0
    assert second.gain.abs().amax(-1).min() > 0.0


def test_discs_of_each_row_are_its_own() -> None:
    state, centres = states(8), torch.randn(8, 3, 2, dtype=torch.float64)
    together = linearise(Discs(centres, 0.2), state)
    for row in range(len(state)):
        alone = linearise(Discs(centres[row], 0.2), state[row : row + 1])
        torch.testing.assert_close(together.value[row : row + 1], alone.value)
        torch.testing.assert_close(together.gradient[row : row + 1], alone.gradient)


def test_observed_discs_equal_fixed_discs() -> None:
    centres = torch.tensor([[0.3, 0.4], [-1.0, 0.2]], dtype=torch.float64)
    position = states(nx=2)
    state = torch.cat([position, centres.flatten().expand(len(position), -1)], dim=1)
    observed = ObservedDiscs([(2, 3), (4, 5)], 0.25, positions=(0, 1))
    torch.testing.assert_close(observed.value(state), Discs(centres, 0.25).value(position))


@pytest.mark.parametrize(
    "barrier", [Discs(torch.zeros(1, 2), 0.3), Superellipse([0.0, 0.0], [0.5, 0.5], exponent=4.0)]
)
def test_gradient_at_the_centre_is_finite_and_not_zero(barrier: Barrier) -> None:
    gradient = linearise(barrier, torch.zeros(1, NX)).gradient
    assert gradient.isfinite().all()
    assert gradient.abs().amax() > 0.0


def test_soft_minimum_is_conservative_and_close() -> None:
    sharpness, state = 5.0, states(512)
    soft = SoftMinimum(TWO_DISCS, sharpness=sharpness).value(state)
    exact = Minimum(TWO_DISCS).value(state)
    assert (soft <= exact).all()
    assert (exact - soft).max() <= math.log(2.0) / sharpness + 1e-12


@pytest.mark.parametrize("exponent", [1.0, 2.0, 4.0])
def test_superellipse_outside_is_convex(exponent: float) -> None:
    barrier = Superellipse([0.1, 0.2], [0.5, 0.7], exponent=exponent)
    one, other = states(512), states(512).flip(0)
    middle = barrier.value(0.5 * (one + other))
    assert (middle <= 0.5 * (barrier.value(one) + barrier.value(other)) + 1e-12).all()


def test_box_without_finite_bounds_has_no_constraint() -> None:
    empty = box([-math.inf], [math.inf], positions=(1,))
    value, gradient = linearise(empty, states(3))
    assert value.shape == (3, 0)
    assert gradient.shape == (3, 0, NX)


def test_corridor_measures_the_distance_to_its_walls() -> None:
    barrier = corridor((0.0, 1.0), (2.0, 0.0), 0.5)
    value = barrier.value(torch.tensor([[3.0, 1.2]], dtype=torch.float64))
    torch.testing.assert_close(value.sort().values, torch.tensor([[0.3, 0.7]]).double())


def test_braking_keeps_every_stopping_distance_from_falling() -> None:
    dynamics = double_integrator(0.1, axes=2)
    state = states(4096)
    for _ in range(50):
        brake = (-state[:, 2:] / 0.1).clamp(-1.5, 1.5)
        before, state = STOPPING.value(state), dynamics.predict(state, brake).mean
        assert (STOPPING.value(state) >= before - 1e-12).all()


def test_stopping_distance_lies_just_above_the_parabola() -> None:
    speed = torch.linspace(0.0, 3.0, 1001, dtype=torch.float64)
    zero = torch.zeros_like(speed)
    room = STOPPING.value(torch.stack([zero, zero, speed, zero], dim=1))[:, 0]
    parabola = speed.square() / (2.0 * 1.5)
    assert (1.0 - room >= parabola - 1e-12).all()
    assert (1.0 - room <= parabola + 1.5 * 0.1**2 / 8.0 + 1e-12).all()


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(RangeError):
        HalfSpaces(torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(ShapeError):
        HalfSpaces(torch.ones(1, 3), torch.zeros(1))
    with pytest.raises(RangeError):
        box([1.0], [1.0], positions=(0,))
    with pytest.raises(ShapeError):
        box([1.0], [2.0], positions=(0, 1))
    with pytest.raises(RangeError):
        corridor((0.0, 0.0), (1.0, 0.0), 0.0)
    with pytest.raises(RangeError):
        corridor((0.0, 0.0), (0.0, 0.0), 1.0)
    with pytest.raises(RangeError):
        Discs(torch.zeros(1, 2), 0.0)
    with pytest.raises(ShapeError):
        Discs(torch.zeros(1, 3), 1.0)
    with pytest.raises(ShapeError):
        ObservedDiscs([(0, 1), (2,)], 1.0)
    with pytest.raises(RangeError):
        ObservedDiscs([(0, 1)], 0.0)
    with pytest.raises(RangeError):
        Superellipse([0.0, 0.0], [1.0, 0.0])
    with pytest.raises(RangeError):
        Superellipse([0.0, 0.0], [1.0, 1.0], exponent=0.5)
    with pytest.raises(ShapeError):
        Superellipse([0.0], [1.0, 1.0])
    with pytest.raises(RangeError):
        SoftMinimum(TWO_DISCS, sharpness=0.0)
    with pytest.raises(RangeError):
        Stack()
    with pytest.raises(RangeError):
        RelativeDegreeTwo(TWO_DISCS, Unicycle(0.1), rate=0.0)


@pytest.mark.parametrize(
    "change",
    [{"braking": 0.0}, {"period": 0.0}, {"low": [2.0, 0.0]}, {"velocities": (2,)}],
)
def test_stopping_distance_refuses_invalid_arguments(change: dict[str, object]) -> None:
    arguments: dict[str, object] = {
        "low": [-1.0, -1.0],
        "high": [1.0, 1.0],
        "braking": 1.0,
        "period": 0.1,
        "positions": (0, 1),
        "velocities": (2, 3),
    }
    with pytest.raises((RangeError, ShapeError)):
        StoppingDistance(**(arguments | change))  # type: ignore[arg-type]  # wrong on purpose


def test_the_gradient_of_an_observed_disc_is_finite_on_the_axes():
    barrier = ObservedDiscs([(2, 3)], 0.2, positions=(0, 1))
    state = torch.tensor([[0.0, 0.0, 0.0, 0.45], [0.0, 0.0, 0.3, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(barrier.value(state).sum(), state)
    expected = [[0.0, -1.0, 0.0, 1.0], [-1.0, 0.0, 1.0, 0.0]]
    torch.testing.assert_close(gradient, torch.tensor(expected))

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from safectl.barriers import Discs, HalfSpaces, StoppingDistance, Superellipse, box
from safectl.dynamics import (
    Bicycle,
    CartPole,
    LinearDynamics,
    Propagates,
    Uncertain,
    Unicycle,
    double_integrator,
)
from safectl.errors import RangeError, ShapeError
from safectl.safeguards import BarrierQP, Brake
from safectl.spec import Signal, Spec
from safectl.types import Barrier, Decision, Status

PERIOD = 0.1
VIOLATION_TOLERANCE = 1e-6
"""Metres; a float32 position of order one is rounded by 6e-8 per step."""


def spec(nx: int, nu: int, limit: float = 1.0) -> Spec:
    return Spec(
        observation=tuple(Signal(f"x{index}", "m", -9.0, 9.0) for index in range(nx)),
        action=tuple(Signal(f"u{index}", "m/s", -limit, limit) for index in range(nu)),
        period=PERIOD,
    )


def single_integrator() -> LinearDynamics:
    return LinearDynamics(torch.zeros(2, 2).double(), torch.eye(2).double(), PERIOD)


def stopping_guard(axes: int) -> BarrierQP:
    positions, velocities = tuple(range(axes)), tuple(range(axes, 2 * axes))
    barrier = StoppingDistance(
        [-1.0] * axes,
        [1.0] * axes,
        braking=1.0,
        period=PERIOD,
        positions=positions,
        velocities=velocities,
    )
    fallback = Brake(spec(2 * axes, axes), velocities=velocities)
    return BarrierQP(barrier, double_integrator(PERIOD, axes=axes), fallback=fallback)


def margins(decision: Decision) -> Tensor:
    return decision.certificate.margin


def test_one_half_space_is_the_projection_by_hand() -> None:
    wall = HalfSpaces(torch.tensor([[-1.0, 0.0]]), torch.tensor([-1.0]))  # p <= 1
    guard = BarrierQP(wall, single_integrator(), fallback=Brake(spec(2, 2)), rate=0.5)
    decision = guard.filter(torch.tensor([[0.96, 0.0]]), torch.tensor([[0.8, 0.3]]))
    # 1 - (0.96 + 0.1 u) >= 0.5 * 0.04, so u <= 0.2
    torch.testing.assert_close(decision.action, torch.tensor([[0.2, 0.3]]), atol=1e-3, rtol=0.0)
    assert decision.certificate.status.tolist() == [Status.CORRECTED]


def test_margin_is_recomputed_from_the_model() -> None:
    barrier, dynamics = Discs(torch.tensor([[0.5, 0.0]]), 0.2), Unicycle(PERIOD)
    guard = BarrierQP(barrier, dynamics, fallback=Brake(spec(3, 2)), rate=0.3)
    state = torch.randn(512, 3, generator=torch.Generator().manual_seed(1))
    decision = guard.filter(state, torch.ones(512, 2))
    after = barrier.value(dynamics.predict(state, decision.action).mean)
    expected = (after - (1.0 - 0.3) * barrier.value(state)).amin(-1)
    torch.testing.assert_close(margins(decision), expected, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize(
    ("barrier", "rate"),
    [
        (Discs(torch.tensor([[0.0, 0.0], [0.6, 0.6]]), 0.3), 0.5),
        (Superellipse([0.0, 0.0], [0.5, 0.3], exponent=4.0), 1.0),
        (Discs(torch.tensor([[0.0, 0.0]]), 0.9, inside=True), 1.0),
        (box([-0.5, -0.5], [0.5, 0.5], positions=(0, 1)), 1.0),
    ],
)
def test_a_sampled_robot_never_enters(barrier: Barrier, rate: float) -> None:
    dynamics = single_integrator()
    guard = BarrierQP(barrier, dynamics, fallback=Brake(spec(2, 2)), rate=rate)
    generator = torch.Generator().manual_seed(2)
    state = 2.0 * torch.rand(2048, 2, generator=generator) - 1.0
    state = state[(barrier.value(state) >= 0.0).all(-1)]
    aim = torch.randn(len(state), 2, generator=generator)
    for _ in range(50):
        decision = guard.filter(state, aim)
        assert (margins(decision) >= 0.0).all()
        assert not (decision.certificate.status == Status.FALLBACK.value).any()
        state = dynamics.predict(state, decision.action).mean
        assert (barrier.value(state) >= -VIOLATION_TOLERANCE).all()


def test_correction_is_the_nearest_of_all_admissible_actions() -> None:
    guard, generator = stopping_guard(1), torch.Generator().manual_seed(3)
    state = torch.rand(256, 2, generator=generator) * 2.0 - 1.0
    state = state[(guard.barrier.value(state) >= 1e-3).all(-1)]
    action = 1.5 * torch.randn(len(state), 1, generator=generator)
    decision = guard.filter(state, action)
    assert not (decision.certificate.status == Status.FALLBACK.value).any()
    grid = torch.linspace(-1.0, 1.0, 2001)
    nearest = torch.full((len(state),), torch.inf)
    for candidate in grid:
        after = guard.dynamics.predict(state, candidate.expand(len(state), 1)).mean
        admissible = (guard.barrier.value(after) >= 0.0).all(-1)
        distance = (candidate - action[:, 0]).abs()
        nearest = torch.where(admissible, torch.minimum(nearest, distance), nearest)
    length = (decision.action - action).abs()[:, 0]
    assert (length <= nearest + 1e-3).all()  # the spacing of the grid


def test_a_state_outside_is_led_back_at_the_rate() -> None:
    wall = HalfSpaces(torch.tensor([[-1.0, 0.0]]), torch.tensor([-1.0]))
    guard = BarrierQP(wall, single_integrator(), fallback=Brake(spec(2, 2)), rate=0.5)
    state = torch.tensor([[1.1, 0.0]])
    decision = guard.filter(state, torch.tensor([[0.0, 0.0]]))
    after = wall.value(guard.dynamics.predict(state, decision.action).mean)
    torch.testing.assert_close(after, torch.tensor([[-0.05]]), atol=1e-4, rtol=0.0)
    assert decision.certificate.status.tolist() == [Status.CORRECTED]


def test_what_no_action_can_meet_takes_the_fallback_with_its_margin() -> None:
    wall = HalfSpaces(torch.tensor([[-1.0, 0.0]]), torch.tensor([-1.0]))
    guard = BarrierQP(wall, single_integrator(), fallback=Brake(spec(2, 2), fixed=[-1.0, 0.0]))
    decision = guard.filter(torch.tensor([[1.5, 0.0]]), torch.tensor([[0.3, 0.3]]))
    assert decision.certificate.status.tolist() == [Status.FALLBACK]
    torch.testing.assert_close(decision.action, torch.tensor([[-1.0, 0.0]]))
    torch.testing.assert_close(margins(decision), torch.tensor([-0.4]))
    torch.testing.assert_close(decision.certificate.residual, torch.tensor([0.4]))
    assert decision.certificate.risk.tolist() == [1.0]


def test_a_constraint_beyond_the_reach_of_the_action_falls_back() -> None:
    far = HalfSpaces(torch.tensor([[-1.0, 0.0]]), torch.tensor([0.0]))  # p <= 0, but u moves v
    dynamics = LinearDynamics(
        torch.zeros(4, 4).double(), torch.eye(4, 2).double()[:, [1, 0]] * 0.0, 0.1
    )
    guard = BarrierQP(far, dynamics, fallback=Brake(spec(4, 2)))
    decision = guard.filter(torch.ones(1, 4), torch.zeros(1, 2))
    assert decision.certificate.status.tolist() == [Status.FALLBACK]


def test_without_constraints_only_the_limits_remain() -> None:
    empty = box([-torch.inf], [torch.inf], positions=(0,))
    guard = BarrierQP(empty, single_integrator(), fallback=Brake(spec(2, 2)))
    decision = guard.filter(torch.zeros(2, 2), torch.tensor([[0.5, 0.5], [3.0, 0.5]]))
    torch.testing.assert_close(decision.action, torch.tensor([[0.5, 0.5], [1.0, 0.5]]))
    assert decision.certificate.status.tolist() == [Status.KEPT, Status.CORRECTED]
    assert margins(decision).tolist() == [torch.inf, torch.inf]


def test_observations_are_mapped_to_states() -> None:
    wall = HalfSpaces(torch.tensor([[-1.0, 0.0]]), torch.tensor([-1.0]))
    brake = Brake(spec(3, 2))
    direct = BarrierQP(wall, single_integrator(), fallback=brake)
    mapped = BarrierQP(
        wall, single_integrator(), fallback=brake, observe=lambda seen: 2.0 * seen[:, 1:]
    )
    state, action = torch.tensor([[0.96, 0.0]]), torch.tensor([[0.8, 0.3]])
    seen = torch.cat([torch.zeros(1, 1), state / 2.0], dim=1)
    torch.testing.assert_close(
        mapped.filter(seen, action).action, direct.filter(state, action).action
    )


def test_every_row_may_have_discs_of_its_own() -> None:
    centres = torch.tensor([[[0.31, 0.0]], [[-0.31, 0.0]]])
    guard = BarrierQP(Discs(centres, 0.25), single_integrator(), fallback=Brake(spec(2, 2)))
    decision = guard.filter(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert decision.certificate.status.tolist() == [Status.CORRECTED, Status.KEPT]


def test_double_precision_stays_double_precision() -> None:
    decision = stopping_guard(2).filter(torch.full((4, 4), 0.4).double(), torch.ones(4, 2).double())
    assert decision.action.dtype == decision.certificate.margin.dtype == torch.float64


def test_a_noisy_model_leaves_no_bound_on_the_risk() -> None:
    wall = HalfSpaces(torch.tensor([[-1.0, 0.0]]), torch.tensor([-1.0]))
    quiet = single_integrator()
    noisy = LinearDynamics(quiet.A, quiet.B, PERIOD, noise=[0.1, 0.0])
    state, action = torch.zeros(2, 2), torch.tensor([[0.5, 0.0], [3.0, 0.0]])
    for model, risk in ((quiet, 0.0), (noisy, 1.0)):
        decision = BarrierQP(wall, model, fallback=Brake(spec(2, 2))).filter(state, action)
        assert decision.certificate.status.tolist() == [Status.KEPT, Status.CORRECTED]
        assert decision.certificate.risk.tolist() == [risk, risk]


def measured(model: Propagates, deviations: list[float]) -> Uncertain:
    return Uncertain(model, torch.diag(torch.tensor(deviations).square()))


def noisy_bicycle(tolerance: float | None) -> BarrierQP:
    barrier = HalfSpaces(torch.tensor([[-1.0, -0.5]]), torch.tensor([-0.5]), positions=(0, 3))
    model = measured(
        Bicycle(PERIOD, wheelbase=0.5, noise=[0.01, 0.01, 0.02, 0.05]), [0.02, 0.02, 0.05, 0.1]
    )
    return BarrierQP(barrier, model, fallback=Brake(spec(4, 2, 8.0)), tolerance=tolerance)


def noisy_unicycle(tolerance: float | None) -> BarrierQP:
    barrier = Discs(torch.tensor([[0.5, 0.05]]), 0.3)
    model = measured(Unicycle(PERIOD, noise=[0.02, 0.02, 0.01]), [0.02, 0.02, 0.05])
    return BarrierQP(barrier, model, fallback=Brake(spec(3, 2, 8.0)), tolerance=tolerance)


@pytest.mark.parametrize(("make", "exact"), [(noisy_bicycle, True), (noisy_unicycle, False)])
@pytest.mark.parametrize("tolerance", [0.01, 0.1])
def test_a_chance_constraint_is_violated_as_often_as_tolerated(
    make: Callable[[float], BarrierQP], exact: bool, tolerance: float
) -> None:
    guard = make(tolerance)
    nx = guard.dynamics.nx
    state, action = torch.tensor([[0.0, 0.0, 0.0, 0.5]])[:, :nx], torch.tensor([[4.0, 0.0]])
    decision = guard.filter(state, action)
    assert decision.certificate.status.item() == Status.CORRECTED
    assert decision.certificate.risk.item() == pytest.approx(tolerance)
    mean, covariance = guard.dynamics.predict(state, decision.action)
    drawn = torch.randn(100_000, nx, generator=torch.Generator().manual_seed(3))
    after = mean + drawn @ torch.linalg.cholesky(covariance[0]).T
    violated = (guard.barrier.value(after) < 0.0).double().mean().item()
    assert violated <= tolerance + 0.003
    if exact:
        assert violated == pytest.approx(tolerance, abs=0.003)


def test_a_tolerance_keeps_a_distance_that_the_mean_does_not() -> None:
    state, action = torch.zeros(1, 3), torch.tensor([[4.0, 0.0]])
    loose, tight = (
        noisy_unicycle(tolerance).filter(state, action).action[0, 0] for tolerance in (None, 0.05)
    )
    assert loose > tight > 0.0
    with pytest.raises(RangeError, match="tolerance"):
        noisy_unicycle(0.7)


def test_states_of_another_width_are_refused() -> None:
    wall = HalfSpaces(torch.tensor([[-1.0, 0.0]]), torch.tensor([-1.0]))
    brake = Brake(spec(3, 2))
    with pytest.raises(ShapeError, match="observation"):
        BarrierQP(wall, single_integrator(), fallback=brake).filter(
            torch.zeros(2, 3), torch.zeros(2, 2)
        )
    for observe in (lambda seen: seen, lambda seen: seen[:1, :2]):
        guard = BarrierQP(wall, single_integrator(), fallback=brake, observe=observe)
        with pytest.raises(ShapeError, match="state"):
            guard.filter(torch.zeros(2, 3), torch.zeros(2, 2))


def test_a_linearisation_without_an_admissible_action_is_not_the_end() -> None:
    generator = torch.Generator().manual_seed(0)
    fallbacks = 0
    for _ in range(10):
        barrier = Discs(0.7 * torch.randn(4, 2, generator=generator), 0.3)
        guard = BarrierQP(barrier, single_integrator(), fallback=Brake(spec(2, 2)), rate=0.3)
        state, action = (torch.randn(400, 2, generator=generator) for _ in range(2))
        decision = guard.filter(state, 2.0 * action)
        fallbacks += int((decision.certificate.status == Status.FALLBACK.value).sum())
    assert fallbacks <= 0.008 * 4000  # 1.2 % without a second start


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_shapes_at_no_place_are_refused(value: float) -> None:
    with pytest.raises(RangeError, match="offsets"):
        HalfSpaces(torch.tensor([[1.0, 0.0]]), torch.tensor([value]))
    with pytest.raises(RangeError, match="centres"):
        Discs(torch.tensor([[0.0, value]]), 0.3)
    with pytest.raises(RangeError, match="radius"):
        Discs(torch.zeros(1, 2), value)


def test_invalid_arguments_are_refused() -> None:
    barrier = Discs(torch.zeros(1, 2), 0.3)
    with pytest.raises(ShapeError):
        BarrierQP(barrier, CartPole(0.1), fallback=Brake(spec(4, 2)))
    for rate in (0.0, 1.5, torch.nan):
        with pytest.raises(RangeError):
            BarrierQP(barrier, Unicycle(0.1), fallback=Brake(spec(3, 2)), rate=rate)
    with pytest.raises(RangeError):
        BarrierQP(barrier, Unicycle(0.1), fallback=Brake(spec(3, 2)), iterations=0)


def violations(guard: BarrierQP, rows: int, steps: int, *, guarded: bool) -> float:
    """Return the largest violation of |p| <= 1 of a float64 plant, between samples too [m]."""
    generator = torch.Generator().manual_seed(5)
    plant = guard.dynamics
    state = torch.zeros(rows, 4, dtype=torch.float64)
    worst, push = 0.0, torch.zeros(rows, 2)
    for step in range(steps):
        if step % 25 == 0:
            push = 2.0 * torch.randn(rows, 2, generator=generator)
        proposal = push + torch.randn(rows, 2, generator=generator)
        action = guard.filter(state.float(), proposal).action if guarded else proposal.clamp(-1, 1)
        for share in (0.25, 0.5, 0.75):
            time, pull = share * PERIOD, action.double()
            between = state[:, :2] + time * state[:, 2:] + 0.5 * time**2 * pull
            worst = max(worst, float(between.abs().max()) - 1.0)
        state = plant.predict(state, action.double()).mean
        worst = max(worst, float(state[:, :2].abs().max()) - 1.0)
    return worst


def test_an_unguarded_double_integrator_leaves_the_box() -> None:
    assert violations(stopping_guard(2), 100, 100, guarded=False) > 0.1


@pytest.mark.slow
def test_a_million_guarded_steps_without_a_violation() -> None:
    assert violations(stopping_guard(2), 1000, 1000, guarded=True) <= VIOLATION_TOLERANCE


def test_escape_keeps_what_does_not_lead_deeper_and_corrects_what_does() -> None:
    disc = Discs(torch.tensor([[1.0, 0.0]]), 0.3)
    guard = BarrierQP(disc, Unicycle(PERIOD), fallback=Brake(spec(3, 2)), rate=0.5, escape=True)
    inside = torch.tensor([[0.8, 0.0, 0.0]])  # heading for the centre
    for proposal in ([-1.0, 0.0], [-0.01, 0.3], [0.0, 1.0], [0.0, 0.0]):
        decision = guard.filter(inside, torch.tensor([proposal]))
        assert decision.certificate.status.tolist() == [Status.KEPT], proposal
    decision = guard.filter(inside, torch.tensor([[1.0, 0.0]]))
    assert decision.action[0, 0] <= 0.0
    assert decision.certificate.margin[0] >= 0.0


def test_escape_changes_nothing_outside_of_the_violation() -> None:
    disc = Discs(torch.tensor([[0.5, 0.1]]), 0.3)
    generator = torch.Generator().manual_seed(2)
    state = 2.0 * torch.rand(256, 3, generator=generator) - 1.0
    state = state[(disc.value(state) >= 0.0).all(1)]
    proposal = torch.randn(len(state), 2, generator=generator)
    answers = [
        BarrierQP(
            disc, Unicycle(PERIOD), fallback=Brake(spec(3, 2)), rate=0.5, escape=escape
        ).filter(state, proposal)
        for escape in (False, True)
    ]
    assert torch.equal(answers[0].action, answers[1].action)


def test_without_escape_a_robot_within_a_disc_can_be_trapped() -> None:
    disc = Discs(torch.tensor([[1.0, 0.0]]), 0.3)
    guard = BarrierQP(disc, Unicycle(PERIOD), fallback=Brake(spec(3, 2)), rate=0.9)
    decision = guard.filter(torch.tensor([[0.9, 0.0, 0.0]]), torch.tensor([[-0.5, 0.0]]))
    assert decision.certificate.status.tolist() == [Status.FALLBACK]


def test_the_first_correction_of_a_process_imports_nothing() -> None:
    program = """
import sys
import torch
from safectl.barriers import HalfSpaces
from safectl.dynamics import LinearDynamics
from safectl.safeguards import BarrierQP, Brake
from safectl.spec import Signal, Spec

signals = tuple(Signal(name, "m", -9.0, 9.0) for name in "xy")
wall = HalfSpaces(torch.tensor([[-1.0, 0.0]]), torch.tensor([-1.0]))
model = LinearDynamics(torch.zeros(2, 2).double(), torch.eye(2).double(), 0.1)
guard = BarrierQP(wall, model, fallback=Brake(Spec(signals, signals, 0.1)))
guard.filter(torch.zeros(1, 2), torch.zeros(1, 2))
before = set(sys.modules)
decision = guard.filter(torch.tensor([[0.9, 0.0]]), torch.tensor([[5.0, 0.0]]))
assert decision.certificate.status.tolist() == [1]
print(len(set(sys.modules) - before))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "0\n"

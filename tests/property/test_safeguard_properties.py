"""Generated cases for the algebra of barriers and safeguards."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from safectl.barriers import Discs, HalfSpaces, Minimum, SoftMinimum, Stack, StoppingDistance
from safectl.dynamics import LinearDynamics, double_integrator
from safectl.safeguards import (
    ACS,
    ACSOptions,
    BarrierQP,
    Brake,
    Chain,
    Clip,
    CorrectionOptions,
    Hold,
    RateLimit,
    Remembering,
    correct,
)
from safectl.safeguards.correction import Mode
from safectl.safeguards.evidence import Limits
from safectl.solve import project
from safectl.spec import Signal, Spec
from safectl.types import Decision, Safeguard, Status

FEW = settings(max_examples=60, deadline=None, derandomize=True)
"""Each example is a batch; the deadline would measure the machine."""

SAME_TOLERANCE = 1e-4
"""Two ways to one projection in float32: a back-off of 1e-5 on gradients of 0.1."""

number = st.floats(-3.0, 3.0, width=32)
seeds = st.integers(0, 2**31 - 1)
periods = st.floats(0.01, 0.5)
rates = st.floats(0.05, 1.0)


def spec(nx: int, nu: int, period: float) -> Spec:
    return Spec(
        tuple(Signal(f"x{index}", "m", -9.0, 9.0) for index in range(nx)),
        tuple(Signal(f"u{index}", "m/s^2", -1.0, 1.0) for index in range(nu)),
        period,
    )


def draw(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stopping(period: float, braking: float = 1.0) -> StoppingDistance:
    return StoppingDistance(
        [-1.0, -1.0],
        [1.0, 1.0],
        braking=braking,
        period=period,
        positions=(0, 1),
        velocities=(2, 3),
    )


@dataclass(frozen=True)
class RandomCritic:
    """Costs sigmoid(w a + v s + bend), bent in the action."""

    by_action: Tensor
    by_state: Tensor

    def value(self, observation: Tensor, /) -> Tensor:
        return torch.sigmoid(observation @ self.by_state.T)

    def cost(self, observation: Tensor, action: Tensor, /) -> Tensor:
        bend = 0.3 * (3.0 * action).sin().sum(-1, keepdim=True)
        return torch.sigmoid(action @ self.by_action.T + observation @ self.by_state.T + bend)


def require_laws(safeguard: Safeguard, observation: Tensor, action: Tensor) -> Decision:
    decision = safeguard.filter(observation, action)
    status, certificate = decision.certificate.status, decision.certificate
    kept, certified = status == Status.KEPT.value, status != Status.FALLBACK.value
    assert torch.equal(decision.action[kept], action[kept])
    assert decision.action.isfinite().all()
    assert (certificate.margin[certified] >= 0.0).all()
    assert (certificate.residual[certified] == 0.0).all()
    again = safeguard.filter(observation, decision.action)
    assert torch.equal(again.action[certified], decision.action[certified])
    assert (again.certificate.status[certified] == Status.KEPT.value).all()
    return decision


@FEW
@given(seeds, periods, rates)
def test_laws_hold_for_random_half_spaces(seed: int, period: float, rate: float) -> None:
    barrier = HalfSpaces(draw(seed, 3, 4), draw(seed + 1, 3), positions=(0, 1, 2, 3))
    brake = Brake(spec(4, 2, period), velocities=(2, 3))
    guard = BarrierQP(barrier, double_integrator(period, axes=2), fallback=brake, rate=rate)
    require_laws(guard, draw(seed + 2, 64, 4), draw(seed + 3, 64, 2, scale=2.0))


@FEW
@given(seeds, periods, rates)
def test_laws_hold_for_random_discs(seed: int, period: float, rate: float) -> None:
    model = LinearDynamics(torch.zeros(2, 2).double(), torch.eye(2).double(), period)
    barrier = Discs(draw(seed, 3, 2), 0.3)
    guard = BarrierQP(barrier, model, fallback=Brake(spec(2, 2, period)), rate=rate)
    state, action = draw(seed + 2, 64, 2), draw(seed + 3, 64, 2, scale=2.0)
    decision = require_laws(guard, state, action)
    outside = (barrier.value(state) >= 0.0).all(-1)
    certified = outside & (decision.certificate.status != Status.FALLBACK.value)
    after = barrier.value(model.predict(state, decision.action).mean)
    assert (after[certified] >= 0.0).all()


@FEW
@given(seeds, periods)
def test_inside_the_stopping_distance_something_is_always_certified(
    seed: int, period: float
) -> None:
    barrier = stopping(period)
    brake = Brake(spec(4, 2, period), velocities=(2, 3))
    guard = BarrierQP(barrier, double_integrator(period, axes=2), fallback=brake)
    state = draw(seed, 256, 4)
    state = state[(barrier.value(state) >= 1e-4).all(-1)]  # beyond rounding of the boundary
    action = draw(seed + 1, len(state), 2, scale=2.0)
    decision = require_laws(guard, state, action)
    assert (decision.certificate.status != Status.FALLBACK.value).all()


@FEW
@given(seeds, periods)
def test_one_linearisation_is_the_projection_for_a_linear_model(seed: int, period: float) -> None:
    barrier = HalfSpaces(draw(seed, 2, 4), -draw(seed + 1, 2).abs() - 0.1, positions=(0, 1, 2, 3))
    model, brake = double_integrator(period, axes=2), Brake(spec(4, 2, period))
    state, action = draw(seed + 2, 64, 4, scale=0.2), draw(seed + 3, 64, 2, scale=2.0)
    decision = BarrierQP(barrier, model, fallback=brake).filter(state, action)
    normals = (barrier.normals.float() @ model.Bd.float()).expand(len(state), -1, -1)
    room = barrier.value(model.predict(state, torch.zeros_like(action)).mean)
    limit = torch.ones(2)
    expected = project(action, normals, -room, -limit, limit)
    certified = decision.certificate.status != Status.FALLBACK.value
    lengths = [
        (point - action).norm(dim=-1)[certified] for point in (decision.action, expected.point)
    ]
    size = normals.norm(dim=-1).amin()
    assert ((lengths[0] - lengths[1]).abs() <= SAME_TOLERANCE / size).all()


@FEW
@given(seeds, st.floats(0.5, 20.0))
def test_soft_minimum_lies_below_the_minimum_and_the_minimum_below_all(
    seed: int, sharpness: float
) -> None:
    barrier = Stack(Discs(draw(seed, 3, 2), 0.3), HalfSpaces(draw(seed, 2, 2), draw(seed, 2)))
    state = draw(seed + 1, 64, 2).double()
    soft = SoftMinimum(barrier, sharpness=sharpness).value(state)
    exact = Minimum(barrier).value(state)
    assert (soft <= exact + 1e-12).all()
    assert (exact <= barrier.value(state)).all()


@FEW
@given(seeds, periods, st.floats(0.2, 5.0))
def test_full_braking_never_uses_up_the_stopping_distance(
    seed: int, period: float, braking: float
) -> None:
    barrier, state = stopping(period, braking), draw(seed, 64, 4).double()
    brake = (-state[:, 2:] / period).clamp(-braking, braking)
    after = double_integrator(period, axes=2).predict(state, brake).mean
    assert (barrier.value(after) >= barrier.value(state) - 1e-9).all()


@FEW
@given(st.lists(number, min_size=8, max_size=8), st.lists(number, min_size=2, max_size=2))
def test_a_chain_keeps_what_all_of_its_safeguards_keep(
    proposals: list[float], start: list[float]
) -> None:
    sizes = spec(2, 2, 0.1)
    rate = RateLimit(sizes, [5.0, 3.0], rows=4, start=start)
    parts: tuple[Safeguard, ...] = (Clip(sizes), rate)
    seen, action = torch.zeros(4, 2), torch.tensor(proposals).reshape(4, 2)
    decision = require_laws(Chain(*parts, fallback=Brake(sizes)), seen, action)
    for part in parts:
        alone = part.filter(seen, decision.action)
        assert torch.equal(alone.action, decision.action)
        assert (decision.certificate.margin <= alone.certificate.margin).all()


@FEW
@given(st.lists(st.lists(number, min_size=4, max_size=4), min_size=1, max_size=8))
def test_remembered_rates_are_kept_over_any_sequence(proposals: list[list[float]]) -> None:
    sizes = spec(2, 2, 0.1)
    rate = RateLimit(sizes, [5.0, 3.0], rows=2)
    hold = Hold(Brake(sizes), rows=2, patience=1)
    chain = Chain(Clip(sizes, fallback=hold), rate, fallback=hold)
    safeguard = Remembering(chain, [rate, hold])
    last, step = torch.zeros(2, 2), torch.tensor([0.5, 0.3])
    for proposal in proposals:
        action = safeguard.filter(torch.zeros(2, 2), torch.tensor(proposal).reshape(2, 2)).action
        assert ((action - last).abs() <= step + 1e-6).all()
        last = action


@pytest.mark.parametrize("rows", [1, 2, 7])
@given(st.data())
@FEW
def test_broken_entries_never_reach_another_row(rows: int, data: st.DataObject) -> None:
    guard = BarrierQP(
        stopping(0.1),
        double_integrator(0.1, axes=2),
        fallback=Brake(spec(4, 2, 0.1), velocities=(2, 3)),
    )
    row = data.draw(st.integers(0, rows - 1))
    broken = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
    state, action = draw(3, rows, 4, scale=0.3), draw(4, rows, 2, scale=2.0)
    sound = guard.filter(state, action)
    state[row, data.draw(st.integers(0, 3))] = broken
    decision = guard.filter(state, action)
    others = torch.arange(rows) != row
    assert decision.certificate.status[row] == Status.FALLBACK
    assert decision.action.isfinite().all()
    torch.testing.assert_close(
        decision.action[others], sound.action[others], atol=SAME_TOLERANCE, rtol=0.0
    )


@FEW
@given(seeds, st.sampled_from(["gradient", "newton", "bfgs"]), st.integers(1, 3), st.integers(1, 4))
def test_laws_hold_for_random_learned_costs(seed: int, mode: Mode, m: int, nu: int) -> None:
    critic = RandomCritic(draw(seed, m, nu), draw(seed + 1, m, 2))
    observation, proposal = draw(seed + 2, 32, 2), draw(seed + 3, 32, nu, scale=2.0)
    options = ACSOptions(correction=CorrectionOptions(mode))
    guard = ACS(critic, fallback=Brake(spec(2, nu, 0.1)), options=options)
    decision = require_laws(guard, observation, proposal)
    assert (decision.action.abs() <= 1.0).all()
    clipped = proposal.clamp(-1.0, 1.0)
    threshold = options.bound.threshold(critic.value(observation))
    before = (critic.cost(observation, clipped) - threshold).amax(-1)
    after = (critic.cost(observation, decision.action) - threshold).amax(-1)
    assert (after.clamp(min=0.0) <= before.clamp(min=0.0)).all()
    admissible = before <= 0.0
    assert torch.equal(decision.action[admissible], clipped[admissible])


@FEW
@given(seeds, st.sampled_from(["gradient", "newton", "bfgs"]), st.integers(1, 3))
def test_learned_costs_are_met_row_by_row_as_in_a_batch(seed: int, mode: Mode, m: int) -> None:
    critic = RandomCritic(draw(seed, m, 2).double(), draw(seed + 1, m, 2).double())
    observation, proposal = draw(seed + 2, 8, 2).double(), draw(seed + 3, 8, 2).double()
    threshold = torch.full((8, m), 0.4, dtype=torch.float64)
    limits = Limits(torch.full((2,), -1.0).double(), torch.full((2,), 1.0).double())
    options = CorrectionOptions(mode)
    together = correct(critic, observation, proposal, threshold, limits, options).action
    for row in range(8):
        one = slice(row, row + 1)
        alone = correct(critic, observation[one], proposal[one], threshold[one], limits, options)
        torch.testing.assert_close(alone.action[0], together[row], atol=1e-6, rtol=0.0)

"""Programs of the invariance filters against enumeration, and their promise in discrete time."""

import itertools

import pytest
import torch
from torch import Tensor

from safectl.barriers import Superellipse
from safectl.errors import RangeError
from safectl.planners import (
    RelaxedSafe,
    RobustSafe,
    TimeVaryingSafe,
    cosine_schedule,
    nearest_displacement,
    sampling_steps,
)

PROBLEMS = 100_000
TOLERANCE = 1e-7
"""Of float64 solutions whose Gram matrices have determinants down to 1e-6."""


def draw(m: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randn(count, 2, dtype=torch.float64, generator=generator)
    gradients = torch.randn(m, count, 2, dtype=torch.float64, generator=generator)
    offsets = torch.randn(m, count, dtype=torch.float64, generator=generator)
    return wanted, gradients, offsets


def objective(u: Tensor, wanted: Tensor, g: Tensor, c: Tensor, weight: float) -> Tensor:
    """Cost of a displacement with the best slack, or infinity where a hard constraint fails."""
    gap = (-((g * u).sum(-1) + c)).clamp(min=0.0)
    if weight == 0.0:
        slack = torch.where(gap > TOLERANCE, torch.inf, 0.0)
    else:
        slack = (gap / weight).square()
    return (u - wanted).square().sum(-1) + slack.sum(0)


def enumerate_active_sets(
    wanted: Tensor, gradients: Tensor, offsets: Tensor, weight: float
) -> Tensor:
    """Return the best displacement over every set of active constraints."""
    best, best_cost = wanted, objective(wanted, wanted, gradients, offsets, weight)
    for size in range(1, len(gradients) + 1):
        for chosen in itertools.combinations(range(len(gradients)), size):
            g = gradients[list(chosen)].transpose(0, 1)
            gram = g @ g.mT + weight**2 * torch.eye(size, dtype=g.dtype)
            missing = -(g @ wanted.unsqueeze(-1)).squeeze(-1) - offsets[list(chosen)].T
            multiplier = torch.linalg.pinv(gram) @ missing.unsqueeze(-1)
            u = wanted + (g.mT @ multiplier).squeeze(-1)
            cost = objective(u, wanted, gradients, offsets, weight)
            better = cost < best_cost
            best = torch.where(better.unsqueeze(-1), u, best)
            best_cost = torch.minimum(best_cost, cost)
    return best


@pytest.mark.parametrize("weight", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("m", [1, 2])
def test_closed_forms_agree_with_enumeration(m, weight):
    wanted, gradients, offsets = draw(m, PROBLEMS)
    if m == 2:  # some parallel gradients, which bind together or not at all
        gradients[1, :1000] = 2.0 * gradients[0, :1000]
    found = nearest_displacement(wanted, gradients, offsets, weight)
    expected = enumerate_active_sets(wanted, gradients, offsets, weight)
    ours = objective(found, wanted, gradients, offsets, weight)
    theirs = objective(expected, wanted, gradients, offsets, weight)
    determinant = torch.ones(PROBLEMS, dtype=torch.float64)
    if m == 2:
        determinant = (gradients[0, :, 0] * gradients[1, :, 1]).sub(
            gradients[0, :, 1] * gradients[1, :, 0]
        )
    sound = (determinant.abs() > 1e-3) & theirs.isfinite()
    sound[:1000] = theirs[:1000].isfinite()
    assert sound.float().mean() > 0.99
    torch.testing.assert_close(found[sound], expected[sound], atol=TOLERANCE, rtol=TOLERANCE)
    assert bool((ours[sound] <= theirs[sound] + TOLERANCE * (1.0 + theirs[sound])).all())


def hildreth(wanted: Tensor, gradients: Tensor, offsets: Tensor, sweeps: int = 20_000) -> Tensor:
    """Projected dual iteration."""
    gram = torch.einsum("ind,jnd->nij", gradients, gradients)
    missing = -((gradients * wanted).sum(-1) + offsets).T
    multiplier = torch.zeros_like(missing)
    for _ in range(sweeps):
        before = multiplier.clone()
        for i in range(len(gradients)):
            rest = missing[:, i] - (gram[:, i] * multiplier).sum(-1)
            multiplier[:, i] = (multiplier[:, i] + rest / gram[:, i, i]).clamp(min=0.0)
        if float((multiplier - before).abs().max()) < 1e-12:
            break
    return wanted + torch.einsum("ni,ind->nd", multiplier, gradients)


def test_six_hard_constraints_agree_with_the_projected_dual():
    wanted, gradients, offsets = draw(6, 300)
    offsets = offsets.abs()  # zero is admissible, so every problem has a solution
    found = nearest_displacement(wanted, gradients, offsets)
    torch.testing.assert_close(found, hildreth(wanted, gradients, offsets), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("weight", [0.5, 10.0])
def test_many_soft_constraints_agree_with_enumeration(weight):
    wanted, gradients, offsets = draw(4, 500)
    found = nearest_displacement(wanted, gradients, offsets, weight)
    expected = enumerate_active_sets(wanted, gradients, offsets, weight)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_three_coordinates_use_the_active_set_method():
    generator = torch.Generator().manual_seed(3)
    wanted = torch.randn(200, 3, dtype=torch.float64, generator=generator)
    gradients = torch.randn(4, 200, 3, dtype=torch.float64, generator=generator)
    offsets = torch.rand(4, 200, dtype=torch.float64, generator=generator)
    found = nearest_displacement(wanted, gradients, offsets)
    torch.testing.assert_close(found, hildreth(wanted, gradients, offsets), atol=1e-6, rtol=1e-6)


def test_contradicting_constraints_give_a_finite_displacement():
    wanted = torch.zeros(1, 2, dtype=torch.float64)
    gradients = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    offsets = torch.tensor([[-1.0], [-1.0], [0.0]], dtype=torch.float64)
    for m in (2, 3):
        assert bool(nearest_displacement(wanted, gradients[:m], offsets[:m]).isfinite().all())


def test_a_zero_gradient_changes_nothing():
    wanted = torch.ones(1, 2)
    for m in (1, 2):
        found = nearest_displacement(wanted, torch.zeros(m, 1, 2), -torch.ones(m, 1))
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("exponent", [2.0, 4.0])
@pytest.mark.parametrize("gain", [0.5, 1.0])
@pytest.mark.parametrize("is_power", [False, True])
def test_one_step_keeps_its_promise_outside_convex_sets(exponent, gain, is_power):
    worst = _worst_shortfall(exponent, gain, is_power=is_power)
    assert worst >= -1e-9


@pytest.mark.parametrize("exponent", [2.0, 4.0])
def test_a_gain_above_one_enters_the_obstacle(exponent):
    assert _worst_shortfall(exponent, 1.5, is_power=True, outside_only=True) < -0.05


def _worst_shortfall(
    exponent: float, gain: float, *, is_power: bool, outside_only: bool = False
) -> float:
    """Smallest b(x + u) - (1 - k) b(x), or smallest b(x + u) of states outside."""
    generator = torch.Generator().manual_seed(1)
    state = 3.0 * torch.randn(200_000, 2, dtype=torch.float64, generator=generator)
    wanted = torch.randn(200_000, 2, dtype=torch.float64, generator=generator)
    shape = Superellipse((0.2, -0.1), (1.0, 0.7), exponent=exponent, is_power=is_power)
    value, gradient = shape.value(state), shape.gradient(state)
    offset = gain * value.T
    moved = state + nearest_displacement(wanted, gradient.transpose(0, 1), offset)
    after = shape.value(moved)
    if outside_only:
        return float(after[value >= 0.0].min())
    return float(((after - (1.0 - gain) * value) / (1.0 + value.abs())).min())


def test_a_gain_above_one_is_refused():
    for variant in (RobustSafe, RelaxedSafe, TimeVaryingSafe):
        with pytest.raises(RangeError, match="gain"):
            variant(gain=1.5)


def test_relaxation_ends_hard_and_released_is_a_step():
    corrected, released = RelaxedSafe(), RelaxedSafe(as_released=True)
    assert corrected.slack_weight(0) == 0.0
    assert corrected.slack_weight(40) == pytest.approx(100.0, abs=1e-3)
    assert [released.slack_weight(index) for index in (9, 10)] == [0.0, 100.0]


def test_virtual_specification_of_the_finished_plan_is_the_true_one():
    last = sampling_steps(cosine_schedule(64))[-1]
    value, depth = torch.zeros(1, 1), torch.ones(1, 1)
    offset, _ = TimeVaryingSafe(margin=0.0).condition(value, depth, last)
    # c = k (b - gamma(0)) - (0 - gamma(0)) = 0 for b = 0: the step ends on b >= 0 exactly.
    assert float(offset) == pytest.approx(0.0, abs=1e-7)
    first = sampling_steps(cosine_schedule(64))[0]
    offset, _ = TimeVaryingSafe(margin=0.0).condition(-depth, depth, first)
    assert float(offset) >= 0.0, "the noisiest plan meets the loosest specification"

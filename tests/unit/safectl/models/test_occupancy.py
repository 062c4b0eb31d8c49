from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binom

from safectl.errors import NonFiniteError, RangeError, ShapeError, UnsafeSetUnseen
from safectl.models import (
    ForwardBackward,
    Sizes,
    VisitCritic,
    calibrate_visits,
    score_visits,
    unsafe_embedding,
    visit_bounds,
    visit_within,
)
from safectl.safeguards import VisitLimit
from safectl.seed import torch_generator
from safectl.spec import Signal, Spec
from safectl.types import Status, Task

SIZES = Sizes(nx=3, nu=2, nz=4, hidden=8, embedding=8, backward_hidden=8)
MODEL = ForwardBackward(SIZES)
OBSERVATION = torch.randn(1000, 3, generator=torch_generator(0, "observations"))
SPEC = Spec(
    observation=tuple(Signal(name, "m", -9.0, 9.0) for name in "xyz"),
    action=tuple(Signal(name, "1", -1.0, 1.0) for name in "uv"),
    period=0.1,
)


def test_an_unsafe_set_that_the_data_do_not_show_is_refused():
    is_unsafe = OBSERVATION[:, 0] > 0.0
    found = unsafe_embedding(MODEL.backward, OBSERVATION, is_unsafe)
    mean = (is_unsafe[:, None] * MODEL.backward(OBSERVATION)).mean(0)
    assert torch.allclose(found, mean, atol=1e-6)
    with pytest.raises(UnsafeSetUnseen, match="only 0 observations"):
        unsafe_embedding(MODEL.backward, OBSERVATION, OBSERVATION[:, 0] > 99.0)
    with pytest.raises(NonFiniteError, match="observation holds 1"):
        unsafe_embedding(MODEL.backward, torch.tensor([[torch.nan, 0.0, 0.0]]), is_unsafe[:1])


def test_copies_of_one_observation_are_one_and_a_mask_fits():
    copies = OBSERVATION[:1].expand(200, -1)
    is_unsafe = torch.arange(1_200) < 200
    with pytest.raises(
        UnsafeSetUnseen, match=r"200 observations .* count as 1\.0 different ones, 50 "
    ):
        unsafe_embedding(MODEL.backward, torch.cat([copies, OBSERVATION]), is_unsafe)
    few = torch.cat([OBSERVATION[:49].repeat(5, 1), OBSERVATION])
    with pytest.raises(UnsafeSetUnseen, match=r"count as 49\.0 different"):
        unsafe_embedding(MODEL.backward, few, torch.arange(1_245) < 245)
    some = torch.cat([OBSERVATION[:50].repeat(4, 1), OBSERVATION])
    unsafe_embedding(MODEL.backward, some, is_unsafe)
    with pytest.raises(ShapeError, match="is_unsafe"):
        unsafe_embedding(MODEL.backward, OBSERVATION, is_unsafe)


def test_a_horizon_of_any_length_is_bounded_and_none_is_refused():
    occupancy = torch.tensor([0.0, 1e-30, 0.5, 9.0])
    assert visit_within(occupancy, 0.98, 100_000).tolist() == [0.0, 1.0, 1.0, 1.0]
    assert visit_within(occupancy, 0.98, 1).tolist() == pytest.approx([0.0, 1e-30, 0.5, 1.0])
    for steps in (0, -500):
        with pytest.raises(RangeError, match="steps"):
            visit_within(occupancy, 0.98, steps)


def test_the_bounds_hold_on_random_chains():
    """C and E[gamma^T] are exact: from the resolvent, and from the chain with U absorbing."""
    gamma, states, generator = 0.9, 7, torch_generator(0, "chains")
    for _ in range(30):
        transition = torch.rand(states, states, generator=generator, dtype=torch.float64) ** 4
        transition = transition / transition.sum(1, keepdim=True)
        unsafe = torch.zeros(states, dtype=torch.float64)
        unsafe[:2] = 1.0
        eye = torch.eye(states, dtype=torch.float64)
        occupancy = torch.linalg.solve(eye - gamma * transition, transition @ unsafe)
        stays = transition * (1.0 - unsafe)
        hitting = torch.linalg.solve(eye - gamma * stays, transition @ unsafe)
        low, high, possible = visit_bounds(occupancy, gamma)
        assert bool(possible.all())
        assert bool((low <= hitting + 1e-12).all())
        assert bool((hitting <= high + 1e-12).all())
        within = 1.0 - torch.linalg.matrix_power(stays, 3).sum(1)
        assert bool((within <= visit_within(occupancy, gamma, 3) + 1e-12).all())


def test_the_lower_bound_is_exact_where_the_unsafe_set_absorbs():
    gamma = 0.9
    occupancy = torch.tensor([0.5 * 1.0 / (1.0 - gamma)])  # entered at once with probability 0.5
    assert float(visit_bounds(occupancy, gamma).low) == pytest.approx(0.5)


def test_an_impossible_occupancy_bounds_nothing_and_is_flagged():
    """Possible is [0, 10]; an error of fitting may be 0.5."""
    occupancy = torch.tensor([-1.0, 30.0, torch.nan, -torch.inf, -0.4, 10.4, 2.0])
    found = visit_bounds(occupancy, 0.9)
    assert found.is_possible.tolist() == [False] * 4 + [True] * 3
    assert found.low.tolist() == pytest.approx([0.0] * 5 + [1.0, 0.2])
    assert found.high.tolist() == [1.0] * 4 + [0.0, 1.0, 1.0]
    assert visit_within(occupancy, 0.9, 3).tolist() == [1.0] * 4 + [0.0, 1.0, 1.0]
    for value in (torch.nan, torch.inf):
        occupancy = torch.rand(200)
        occupancy[7] = value
        with pytest.raises(NonFiniteError, match="occupancy holds 1"):
            calibrate_visits(occupancy, occupancy > 0.5)


def test_a_model_that_gives_impossible_occupancies_is_vetoed():
    """b_U a thousand times too large, so that a head is far outside at nearly every action."""
    task, action = Task(MODEL.backward(OBSERVATION[:1])[0].detach()), torch.zeros(1000, 2)
    table = calibrate_visits(torch.rand(200), torch.zeros(200, dtype=torch.bool))
    sound = VisitCritic(MODEL, task, 0.1 * torch.ones(4), discount=0.9)
    assert float(sound.bound(table, OBSERVATION, action).max()) < 0.5
    wrong = VisitCritic(MODEL, task, 1e3 * torch.ones(4), discount=0.9)
    heads, cost = wrong.heads(OBSERVATION, action).detach(), wrong.cost(OBSERVATION, action)
    impossible = ~((heads >= -0.5) & (heads <= 10.5)).all(0)
    assert float(impossible.float().mean()) > 0.9
    assert float(wrong.bound(table, OBSERVATION, action)[impossible].min()) == 1.0
    assert float(cost.detach()[impossible].min()) == pytest.approx(10.0)
    guard = VisitLimit(partial(wrong.bound, table), spec=SPEC, limit=0.5, steps=3)
    status = guard.filter(OBSERVATION, action).certificate.status
    assert float((status == Status.FALLBACK.value).float().mean()) > 0.5


@pytest.mark.parametrize("value", [-0.7, -torch.inf, torch.nan, torch.inf, 1.5])
def test_a_bound_that_is_no_probability_certifies_nothing(value):
    guard = VisitLimit(lambda s, a: value + 0.0 * a[:, 0], spec=SPEC, limit=0.5, steps=3)
    found = guard.filter(torch.zeros(1, 3), torch.zeros(1, 2)).certificate
    assert (int(found.status), float(found.risk)) == (Status.FALLBACK.value, 1.0)


def test_the_critic_takes_the_larger_head_and_stays_in_its_range():
    task, action = Task(MODEL.backward(OBSERVATION[:1])[0].detach()), torch.zeros(1000, 2)
    unsafe = 9.0 * torch.randn(4, generator=torch_generator(0, "unsafe"))
    critic = VisitCritic(MODEL, task, unsafe, discount=0.9)
    cost = critic.cost(OBSERVATION, action)
    rows = task.vector.expand(1000, -1)
    heads = MODEL.forward(OBSERVATION, action, rows) @ critic.unsafe
    possible = (heads >= -0.5) & (heads <= 10.5)
    expected = torch.where(possible, heads.clamp(0.0, 10.0), 10.0).amax(0)
    assert torch.allclose(cost[:, 0], expected, atol=1e-5)
    assert 0.0 < float(expected.detach().mean()) < 10.0
    assert critic.value(OBSERVATION).shape == (1000, 1)
    with pytest.raises(ShapeError, match="unsafe"):
        VisitCritic(MODEL, task, torch.zeros(3), discount=0.9)


def test_calibration_gives_true_shares_bounds_that_cover_and_an_alarm_that_misses_few():
    generator = torch_generator(0, "calibration")

    def rollouts(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        score = 2.0 * torch.rand(count, generator=generator)
        return score, torch.rand(count, generator=generator) < (0.5 * score).square()

    table = calibrate_visits(*rollouts(1_000), delta=0.05)
    occupancy, visited = rollouts(20_000)
    chance = (0.5 * occupancy).square()
    where = torch.bucketize(occupancy, table.edges)
    true_share = torch.stack([chance[where == k].mean() for k in range(len(table.upper))])
    assert float((table.probability - true_share).abs().mean()) < 0.05
    assert int((table.upper < true_share).sum()) <= 1
    assert float((occupancy[visited] < table.alarm).float().mean()) < 0.06
    assert float(table.bound(torch.tensor([torch.nan]))) == 1.0
    assert torch.equal(table.estimate(occupancy[:5]), table.probability[where[:5]])
    with pytest.raises(RangeError, match="at least 100"):
        calibrate_visits(*rollouts(99))
    assert bool((table.upper.diff() >= 0.0).all())
    scores = score_visits(table, occupancy, visited)
    assert scores.ece < 0.05
    assert scores.coverage == 1.0
    assert scores.missed < 0.06
    base = float(visited.double().var(correction=0))
    assert scores.skill == pytest.approx(1.0 - scores.brier / base)
    assert scores.skill > 0.3
    share = visited.float().mean()
    same = replace(table, probability=share.expand(len(table.upper)))
    assert score_visits(same, occupancy, visited).skill == pytest.approx(0.0, abs=1e-6)
    assert score_visits(table, occupancy, torch.zeros_like(visited)).skill == 0.0
    wrong = replace(table, probability=1.0 - table.probability, upper=0.0 * table.upper)
    assert score_visits(wrong, occupancy, visited).ece > 0.3
    assert score_visits(wrong, occupancy, visited).coverage == 0.0
    for limit in (0.0, 0.3, 0.999, 1.0):
        threshold = table.threshold(limit)
        assert torch.equal(table.bound(occupancy) <= limit, occupancy <= threshold)
    none = calibrate_visits(occupancy[:200], torch.zeros(200, dtype=torch.bool))
    assert none.alarm == -torch.inf
    assert float(none.upper.max()) == pytest.approx(1.0 - 0.005 ** (1.0 / 20.0))  # 20 per range


def test_rare_visits_at_the_largest_occupancy_are_not_diluted():
    """Visits are certain in the upper 40 of 4,000, which ten ranges mix with 360 others."""
    occupancy = torch.arange(4_000).flip(0) / 400.0
    table = calibrate_visits(occupancy, occupancy > 9.9)
    assert float(table.bound(torch.tensor([9.95]))) > 0.8
    assert float(table.bound(torch.tensor([8.9]))) < 0.02
    assert table.threshold(0.2) == pytest.approx(9.875, abs=0.01)
    assert int(torch.bincount(torch.bucketize(occupancy, table.edges)).min()) >= 49
    few = calibrate_visits(occupancy[:200], occupancy[:200] > 0.0)
    assert len(few.upper) == 10


def test_the_fallback_is_the_least_of_the_order_where_the_bound_ties():
    def order(observation, action):
        del observation
        return (action - torch.tensor([1.0, -1.0])).norm(dim=-1)

    guard = VisitLimit(lambda s, a: 0.9 + 0.0 * a[:, 0], spec=SPEC, limit=0.5, steps=3, order=order)
    decision = guard.filter(torch.zeros(2, 3), torch.zeros(2, 2))
    assert decision.action.tolist() == [[1.0, -1.0]] * 2
    assert decision.certificate.status.tolist() == [Status.FALLBACK.value] * 2


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 7.0])
def test_where_nothing_tells_the_candidates_apart_the_fallback_is_the_middle(value):
    def certain(observation, action):
        del observation
        return 1.0 + 0.0 * action[:, 0]

    def order(observation, action):
        return value * certain(observation, action)

    for guard in (
        VisitLimit(certain, spec=SPEC, limit=0.5, steps=3, order=order),
        VisitLimit(certain, spec=SPEC, limit=0.5, steps=3),
    ):
        decision = guard.filter(torch.zeros(2, 3), torch.tensor([[1.0, 1.0], [0.3, -0.7]]))
        assert decision.action.tolist() == [[0.0, 0.0]] * 2
        assert decision.certificate.status.tolist() == [Status.FALLBACK.value] * 2


def test_the_bound_covers_rare_visits_in_95_percent_of_calibrations():
    """Exact coverage: the binomial chance of the counts whose bound is at or above the truth."""
    count = 100
    hits = torch.arange(count + 1)
    tables = [calibrate_visits(torch.zeros(count), torch.arange(count) < h, ranges=1) for h in hits]
    upper = torch.stack([table.upper[0] for table in tables]).double()
    assert float(upper[-1]) == 1.0
    for chance in torch.logspace(-4.0, -0.5, 200, dtype=torch.float64):
        mass = torch.from_numpy(binom.pmf(hits.numpy(), count, float(chance)))
        assert float(mass[upper >= chance].sum()) >= 0.95


def test_no_action_is_an_ulp_beyond_the_limits():
    """Only the corner is within the limit, and low + 1 (high - low) may round to beyond high."""
    generator = np.random.default_rng(0)
    for low, width in generator.uniform(0.1, 4.0, (200, 2)).tolist():
        spec = Spec(SPEC.observation, (Signal("u", "m/s", -low, width - low),), SPEC.period)
        high = float(torch.tensor(width - low))
        guard = VisitLimit(
            lambda s, a, high=high: 1.0 * (a[:, 0] < high - 1e-5), spec=spec, limit=0.5, steps=3
        )
        decision = guard.filter(torch.zeros(1, spec.nx), torch.full((1, 1), -low))
        assert decision.certificate.status.tolist() == [Status.CORRECTED.value]
        assert float(decision.action) <= high


def test_the_safeguard_vetoes_an_action_whose_bound_is_above_the_limit():
    guard = VisitLimit(
        lambda s, a: (0.5 * (a[:, 0] + 1.0)).clamp(0, 1), spec=SPEC, limit=0.5, steps=3
    )
    decision = guard.filter(torch.zeros(3, 3), torch.tensor([[-0.4, 0.2], [0.9, 0.2], [2.0, 0.0]]))
    assert decision.certificate.status.tolist() == [
        Status.KEPT.value,
        Status.CORRECTED.value,
        Status.CORRECTED.value,
    ]
    assert float(decision.action[:, 0].max()) <= 0.0
    assert float(decision.certificate.risk.max()) <= 0.5
    hopeless = VisitLimit(lambda s, a: 0.9 + 0.0 * a[:, 0], spec=SPEC, limit=0.5, steps=3)
    found = hopeless.filter(torch.zeros(1, 3), torch.zeros(1, 2)).certificate
    assert (int(found.status), float(found.risk)) == (Status.FALLBACK.value, 1.0)
    blind = VisitLimit(lambda s, a: torch.nan * a[:, 0], spec=SPEC, limit=0.5, steps=3)
    assert int(blind.filter(torch.zeros(1, 3), torch.zeros(1, 2)).certificate.status) == 2
    assert "within 3 steps with probability <= 0.5" in guard.claim
    assert "least predicted bound" in guard.claim
    ordered = VisitLimit(guard.bound, spec=SPEC, limit=0.5, steps=3, order=guard.bound)
    assert "least predicted occupancy" in ordered.claim
    with pytest.raises(RangeError, match="steps"):
        VisitLimit(guard.bound, spec=SPEC, limit=0.5, steps=0)
    with pytest.raises(RangeError, match="limit"):
        VisitLimit(lambda s, a: a[:, 0], spec=SPEC, limit=1.0, steps=3)


@pytest.mark.parametrize("aim", [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
def test_the_corners_and_the_middle_are_tried(aim):
    aim = torch.tensor(aim)
    guard = VisitLimit(
        lambda s, a: 1.0 * (a != aim).any(-1), spec=SPEC, limit=0.5, steps=3, candidates=1
    )
    decision = guard.filter(torch.zeros(1, 3), torch.full((1, 2), 0.3))
    assert torch.equal(decision.action[0], aim)
    assert int(decision.certificate.status) == Status.CORRECTED.value

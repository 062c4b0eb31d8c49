"""The sampler with a surrogate denoiser that always predicts one path through both obstacles."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from safectl.barriers import HalfSpaces, Moving, Stack, Superellipse, roof, speed_limit
from safectl.errors import RangeError, ShapeError
from safectl.planners import (
    DiffusionPlanner,
    Guidance,
    Imposed,
    Normaliser,
    PlanFilter,
    PlanModel,
    RelaxedSafe,
    RobustSafe,
    Specification,
    TimeVaryingSafe,
    cosine_schedule,
    sample,
    sampling_steps,
)
from safectl.planners.schedule import FINISHED
from safectl.types import Planner, Status

H, T, NU = 384, 256, 2
CORNERS = ((0.95, 2.94), (1.5, 4.8), (3.0, 5.0), (4.5, 5.3), (5.0, 8.0), (7.0, 9.0))
START = torch.tensor([[*CORNERS[0], 0.0, 0.0]])
GOAL = torch.tensor([*CORNERS[-1], 0.0, 0.0])
LOW = torch.tensor([0.39643136, 0.44179875, -5.2262554, -5.2262554])
HIGH = torch.tensor([7.2163844, 10.219488, 5.2262554, 5.2262554])


def transition_normaliser() -> Normaliser:
    centre = torch.cat([torch.zeros(2), 0.5 * (LOW + HIGH)]).double()
    scale = torch.cat([torch.ones(2), 0.5 * (HIGH - LOW)]).double()
    return Normaliser(centre, scale)


def path() -> Tensor:
    """Piecewise linear through the corners, normalised positions, shape (H, 2)."""
    corners, share = np.array(CORNERS), np.linspace(0.0, 5.0, H)
    place = [np.interp(share, np.arange(6), corners[:, axis]) for axis in (0, 1)]
    scale = transition_normaliser()
    return (torch.tensor(np.stack(place, 1)) - scale.centre[2:4]) / scale.scale[2:4]


def surrogate(plan: Tensor, step: Tensor) -> Tensor:
    clean = torch.zeros_like(plan)
    clean[..., 2:4] = path().to(plan)
    return clean


def model(denoiser=surrogate) -> PlanModel:
    scale = transition_normaliser()
    return PlanModel(denoiser, scale, NU, H, cosine_schedule(T), clips=True, period=0.01)


def specification(*, is_power: bool = False) -> Specification:
    return Specification(
        {
            "S-SPEC": Superellipse((4.5, 5.3), (1.0, 1.0), is_power=is_power),
            "C-SPEC": Superellipse((1.5, 4.8), (1.0, 1.0), exponent=4.0, is_power=is_power),
        },
        model().observation_normaliser,
    )


def planner(invariance=None, steps=None, eta=1.0, **options) -> DiffusionPlanner:
    spec = options.pop("specification", None) or specification()
    plan_filter = None if invariance is None else PlanFilter(invariance, spec, NU, 0.01)
    ladder = sampling_steps(cosine_schedule(T), steps, eta=eta)
    return DiffusionPlanner(
        options.pop("model", model()), ladder, spec, plan_filter, GOAL.double(), **options
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("invariance", "expected"),
    [
        (RobustSafe(), 0.0100),
        (RelaxedSafe(as_released=True), 0.0100),
        (TimeVaryingSafe(as_released=True), -0.0033),
        (TimeVaryingSafe(as_released=True, corrects_sign=True), 0.00996),
        (TimeVaryingSafe(), 0.0100),
    ],
    ids=["RoS", "ReS", "TVS as released", "TVS with the sign corrected", "TVS"],
)
def test_both_specifications_end_at_the_known_margin(invariance, expected):
    proposal = planner(invariance, specification=specification(is_power=True)).propose(
        START.double()
    )
    assert proposal.evidence.margins[0].tolist() == pytest.approx([expected] * 2, abs=6e-5)


@pytest.mark.parametrize("invariance", [RobustSafe(), RelaxedSafe(), TimeVaryingSafe()])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_few_steps_are_as_safe_as_all(invariance, eta):
    evidence = planner(invariance, steps=16, eta=eta).propose(START.double()).evidence
    assert bool((evidence.margins >= 0.0099).all())


def test_without_a_filter_the_plan_is_unsafe_and_says_so():
    plain = planner(steps=8)
    proposal = plain.propose(START.double())
    assert float(proposal.evidence.margins.amax()) < -0.5
    assert not bool(proposal.evidence.is_safe.any())
    assert float(plain.plan(START.double()).certificate.margin) < -0.5


@pytest.mark.parametrize("variant", [RobustSafe, RelaxedSafe])
def test_a_slow_gain_leaves_the_obstacle_in_further_steps_at_the_finished_plan(variant):
    def worst(extra: int) -> float:
        ladder = sampling_steps(cosine_schedule(T), 2, eta=0.0, extra=extra)
        plan_filter = PlanFilter(variant(gain=0.3), specification(), NU, 0.01)
        found = DiffusionPlanner(model(), ladder, specification(), plan_filter, GOAL.double())
        return float(found.propose(START.double()).evidence.margins.min())

    assert worst(0) < 0.0
    assert worst(50) > 0.0099


def test_the_physical_metric_corrects_along_the_physical_normal():
    disc = Superellipse((4.5, 5.3), (1.0, 1.0))
    spec = Specification({"disc": disc}, model().observation_normaliser)
    scale = transition_normaliser()
    place = torch.tensor([4.7, 5.6]).double()
    plan = torch.zeros(1, 1, 6).double()
    plan[..., 2:4] = (place - scale.centre[2:4]) / scale.scale[2:4]
    outward = (place - torch.tensor([4.5, 5.3])) / (place - torch.tensor([4.5, 5.3])).norm()
    ways = {}
    for is_physical in (False, True):
        plan_filter = PlanFilter(RobustSafe(), spec, NU, 0.01, is_physical=is_physical)
        moved = plan_filter.correct(plan, plan, FINISHED, plan_filter.depth(plan))
        there = moved[0, 0, 2:4] * scale.scale[2:4] + scale.centre[2:4]
        assert float(disc.value(there.unsqueeze(0))) >= 0.0099
        ways[is_physical] = (there - place) / (there - place).norm()
    torch.testing.assert_close(ways[True], outward, atol=1e-5, rtol=0.0)
    assert float((ways[False] - outward).norm()) > 0.05


@pytest.mark.filterwarnings("ignore:.*not known to be convex")
@pytest.mark.parametrize("barrier", ["outside", "inside", "moving"])
def test_batched_plans_equal_single_ones_bit_for_bit(barrier):
    def along(time: Tensor) -> Tensor:
        return torch.stack([time, torch.zeros_like(time)], 1)

    sets = {
        "outside": Stack(*specification().barriers.values()),
        # Noise lies far outside of this room, that of each plan elsewhere: depths differ.
        "inside": Superellipse((4.0, 5.5), (3.4, 4.9), exponent=4.0, inside=True),
        "moving": Moving(Superellipse((2.5, 5.3), (1.0, 1.0)), along),
    }
    ladder = sampling_steps(cosine_schedule(T), 12)
    spec = Specification({barrier: sets[barrier]}, model().observation_normaliser)
    starts = START.double() + 0.05 * torch.arange(3).unsqueeze(-1)
    whole = planner(RobustSafe()).impose(starts)
    draws = torch.randn(13, 3, H, 6, dtype=torch.float64, generator=torch.Generator())

    def run(rows: slice) -> Tensor:
        imposed = Imposed(whole.values[rows], whole.known)
        noise = iter(draws[:, rows])
        plan_filter = PlanFilter(TimeVaryingSafe(), spec, NU, 0.01)
        return sample(surrogate, ladder, imposed, lambda: next(noise), plan_filter=plan_filter).plan

    batched = run(slice(None))
    for row in range(3):
        assert torch.equal(batched[row], run(slice(row, row + 1))[0])


def test_each_plan_keeps_the_depth_of_its_own_noise():
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Watching:
        margin: float = 0.01

        def condition(self, value, depth, step):
            seen.append(depth)
            return TimeVaryingSafe().condition(value, depth, step)

    wall = HalfSpaces(torch.tensor([[1.0, 0.0]]).double(), torch.tensor([3.0]).double())
    spec = Specification({"wall": wall}, model().observation_normaliser)
    noise = torch.zeros(2, H, 6).double()
    noise[1, H // 2, 2] = -2.0  # two half widths of the data before their middle
    imposed = Imposed(noise, torch.zeros(H, 6, dtype=torch.bool))
    plan_filter = PlanFilter(Watching(), spec, NU, 0.01)
    ladder = sampling_steps(cosine_schedule(T), 3, eta=0.0)
    sample(surrogate, ladder, imposed, lambda: noise, plan_filter=plan_filter)
    scale = transition_normaliser()
    expected = torch.stack([torch.ones(()), 3.0 - scale.centre[2] + 2.0 * scale.scale[2]])
    assert len(seen) == 3
    for depth in seen:
        torch.testing.assert_close(depth[0], expected.repeat_interleave(H))


def test_start_and_goal_are_imposed_and_evidence_is_measured_before_a_clip():
    proposal = planner(RobustSafe(), steps=8).propose(START.double())
    torch.testing.assert_close(proposal.states[0, 0], START[0].double())
    torch.testing.assert_close(proposal.states[0, -1], GOAL.double())

    def far(plan: Tensor, step: Tensor) -> Tensor:
        return surrogate(plan, step) + 0.5

    outside = planner(steps=8, model=dataclasses.replace(model(far), clips=False))
    clipped = outside.propose(START.double()).evidence.clipped
    expected = ((path() + 0.5).abs() > 1.0).any(-1).double().mean()
    assert 0.1 < float(expected) < 0.3
    assert float(clipped) == pytest.approx(float(expected), abs=2.0 / H)


def test_margins_are_those_of_the_plan_that_is_returned_beyond_the_data_too():
    wall = HalfSpaces(torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([-8.0]).double())
    spec = Specification({"row below 8": wall}, model().observation_normaliser)

    def far(plan: Tensor, step: Tensor) -> Tensor:
        return surrogate(plan, step) + 0.5

    wide = dataclasses.replace(model(far), clips=False)
    found = planner(steps=8, model=wide, specification=spec).propose(START.double())
    highest = float(found.states[0, :, 0].amax())  # the data end at 7.2
    assert highest > 8.0
    assert float(found.evidence.margins) == pytest.approx(8.0 - highest)
    assert float(found.evidence.segment_margin) == pytest.approx(8.0 - highest)


def test_a_start_or_goal_inside_an_obstacle_is_refused():
    with pytest.raises(RangeError, match=r"goal 0 is .* so no plan from or to it can be safe"):
        dataclasses.replace(planner(RobustSafe()), goal=torch.tensor([4.5, 5.3, 0.0, 0.0]))
    starts = torch.cat([START, torch.tensor([[1.5, 4.8, 0.0, 0.0]])])
    with pytest.raises(RangeError, match="start 1"):
        planner(RobustSafe()).require_start(starts)


def test_rows_that_are_no_observations_are_refused():
    for call in (planner().plan, planner().propose):
        with pytest.raises(ShapeError, match="observation has shape"):
            call(torch.zeros(1, 5))
    for shape in ((4,), (1, 1, 4)):
        with pytest.raises(ShapeError, match="observation has shape"):
            model().require_observations(torch.zeros(shape))
    with pytest.raises(RangeError, match="dtype of the observation"):
        model().require_observations(torch.zeros(1, 4, dtype=torch.long))


def test_what_cannot_be_certified_is_the_fallback_that_stays():
    guarded = planner(RobustSafe(), steps=8)
    assert isinstance(guarded, Planner)
    starts = torch.cat([START, START]).double()
    starts[1, 2] = torch.nan
    plan = guarded.plan(starts)
    # The surrogate jumps across the obstacles, and NaN gives no plan at all.
    assert plan.certificate.status.tolist() == [Status.FALLBACK] * 2
    assert torch.equal(plan.states[0], starts[:1].expand(H, 4))
    assert bool((plan.actions == 0.0).all())
    assert float(plan.certificate.margin[0]) == float(specification().values(starts[:1]).min())
    assert float(plan.certificate.margin[1]) == -torch.inf


def test_a_plan_whose_actions_are_not_finite_is_the_fallback():
    def broken(plan: Tensor, step: Tensor) -> Tensor:
        clean = surrogate(plan, step)
        clean[1, 5, 0] = torch.nan
        return clean

    far = {"far": Superellipse((7.0, 2.0), (0.5, 0.5))}
    spec = Specification(far, model().observation_normaliser)
    starts = torch.cat([START, START]).double()
    plan = planner(RobustSafe(), 8, specification=spec, model=model(broken)).plan(starts)
    assert plan.certificate.status.tolist() == [Status.KEPT, Status.FALLBACK]
    assert bool((plan.actions[1] == 0.0).all())


def test_a_candidate_that_is_not_finite_is_never_the_best():
    def broken(plan: Tensor, step: Tensor) -> Tensor:
        clean = surrogate(plan, step)
        clean[0, 7, 4] = torch.nan  # a velocity of the first candidate, which the barriers ignore
        return clean

    far = {"far": Superellipse((7.0, 2.0), (0.5, 0.5))}
    spec = Specification(far, model().observation_normaliser)
    options = {"specification": spec, "model": model(broken), "candidates": 2}
    plan = planner(RobustSafe(), 8, **options).plan(START.double())
    assert plan.certificate.status.tolist() == [Status.KEPT]


def test_what_float32_rounds_to_the_boundary_is_not_certified():
    wall = HalfSpaces(torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([0.3]).double())
    spec = Specification({"wall": wall}, model().observation_normaliser)
    states = torch.full((1, 4, 4), 0.3)  # 0.3 in float32 is 1.2e-8 more than 0.3
    ladder = sampling_steps(cosine_schedule(T), 1)
    free = DiffusionPlanner(model(), ladder, spec)
    evidence = free.measure(states, torch.zeros(1, 4).bool())
    assert float(evidence.margins) < 0.0
    assert not bool(evidence.is_safe)


@pytest.mark.filterwarnings("ignore:.*not known to be convex")
def test_a_plan_that_begins_later_meets_a_moving_obstacle_where_it_then_is():
    def along(time: Tensor) -> Tensor:
        return torch.stack([4.0 - 2.0 * time, torch.zeros_like(time)], 1)

    moving = {"moving": Moving(Superellipse((4.5, 5.3), (0.5, 0.5)), along)}
    spec = Specification(moving, model().observation_normaliser)
    plain = planner(steps=4, specification=spec)
    # The path is at the centre after 2.3 s; the obstacle comes from above and is there after 2 s.
    states = plain.propose(START.double()).states
    still = Superellipse((4.5, 5.3), (0.5, 0.5))
    for begins_s in (0.0, 1.5):
        time = begins_s + 0.01 * torch.arange(H).double()
        there = states[0].clone()
        there[:, :2] -= along(time)
        expected = float(still.value(there).min())
        found = planner(steps=4, specification=spec).propose(START.double(), begins_s=begins_s)
        assert float(found.evidence.margins) == pytest.approx(expected, abs=1e-6)
        guarded = planner(RobustSafe(), 8, specification=spec)
        kept = guarded.propose(START.double(), begins_s=begins_s)
        assert float(kept.evidence.margins) > 0.0
        certified = guarded.plan_at(START.double(), begins_s).certificate
        assert float(certified.margin) <= float(still.value(there).max())


def test_nothing_in_the_loop_waits_for_the_device_and_constants_are_sent_once():
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            doubles = any(isinstance(each, Tensor) and each.dtype == torch.float64 for each in args)
            if name in ("_local_scalar_dense", "nonzero", "masked_select"):
                seen.append(name)
            if name == "_to_copy" and doubles:
                seen.append("a constant is converted again")
            return function(*args, **(kwargs or {}))

    def halve(plan: Tensor, step: Tensor) -> Tensor:
        return 0.5 * plan

    whole = transition_normaliser()
    scale = Normaliser(whole.centre[2:].float(), whole.scale[2:].float())
    spec = Specification(specification().barriers, scale)
    for invariance in (RobustSafe(), RelaxedSafe(), TimeVaryingSafe()):
        plan_filter = PlanFilter(invariance, spec, NU, 0.01, tightenings=2)

        def draw(plan_filter: PlanFilter = plan_filter) -> None:
            imposed = Imposed(torch.zeros(2, H, 6), torch.zeros(H, 6, dtype=torch.bool))
            ladder = sampling_steps(cosine_schedule(T), 2)
            noise = torch.ones(2, H, 6)
            sample(halve, ladder, imposed, lambda: noise, plan_filter=plan_filter)

        draw()
        with Watch():
            draw()
    assert seen == []


@pytest.mark.filterwarnings("ignore:.*not known to be convex")
def test_the_fallback_stands_still_and_its_margin_is_that_of_its_whole_time():
    def towards(time: Tensor) -> Tensor:
        return torch.stack([-time, torch.zeros_like(time)], 1)

    moving = {"moving": Moving(Superellipse((4.5, 2.94), (0.5, 0.5)), towards)}
    spec = Specification(moving, model().observation_normaliser)
    broken = model(lambda plan, step: torch.full_like(plan, torch.nan))
    start = START.double()
    start[0, 2:] = 3.0
    options = {"model": broken, "velocities": (2, 3), "specification": spec}
    plan = planner(RobustSafe(), steps=2, **options).plan(start)
    assert torch.equal(plan.states[0, 0], start[0])
    assert bool((plan.states[0, 1:, 2:] == 0.0).all())
    assert torch.equal(plan.states[0, :, :2], start[:, :2].expand(H, 2))
    expected = -1.0  # it passes over the start after 3.55 s, at a sample or near it
    assert float(plan.certificate.margin) == pytest.approx(expected, abs=0.01)


def test_a_plan_that_was_moved_and_certified_says_so():
    # Start and goal are within, the corner at (4.5, 5.3) is not.
    wall = HalfSpaces(torch.tensor([[-1.0, 1.0]]).double(), torch.tensor([1.5]).double())
    spec = Specification({"wall": wall}, model().observation_normaliser)
    plan = planner(RobustSafe(), steps=8, specification=spec).plan(START.double())
    assert plan.certificate.status.tolist() == [Status.CORRECTED]
    assert float(plan.certificate.margin) == pytest.approx(0.01, abs=1e-6)
    assert float(plan.certificate.risk) == 0.0


def test_a_free_path_is_certified_and_kept():
    free = {"far": Superellipse((7.0, 2.0), (0.5, 0.5))}
    spec = Specification(free, model().observation_normaliser)
    plan = planner(TimeVaryingSafe(), steps=8, specification=spec).plan(START.double())
    assert plan.certificate.status.tolist() == [Status.KEPT]
    assert float(plan.certificate.margin) > 0.0
    assert float(plan.certificate.risk) == 0.0


@pytest.mark.filterwarnings("ignore:.*not known to be convex")
def test_a_barrier_that_is_only_sampled_is_not_proven():
    still = Moving(Superellipse((7.0, 2.0), (0.5, 0.5)), lambda time: torch.zeros(len(time), 2))
    spec = Specification({"moving": still}, model().observation_normaliser)
    plan = planner(RobustSafe(), steps=8, specification=spec).plan(START.double())
    assert plan.certificate.status.tolist() == [Status.KEPT]
    assert float(plan.certificate.risk) == 1.0


def test_a_stack_is_bounded_as_its_parts_are():
    shapes = [Superellipse((1.5, 4.8), (0.01, 0.01)), Superellipse((4.5, 5.3), (0.02, 0.02))]
    normaliser = model().observation_normaliser
    stacked = Specification({"both": Stack(*shapes)}, normaliser)
    apart = Specification({"one": shapes[0], "two": shapes[1]}, normaliser)
    assert stacked.is_convex
    assert stacked.is_proven
    way = torch.tensor([[[1.0, 4.7, 0.0, 0.0, 0.0], [5.1, 5.5, 0.0, 0.0, 1.0]]])
    assert torch.equal(stacked.segment_values(way), apart.segment_values(way))
    assert torch.equal(stacked.values(way[0]), apart.values(way[0]))


def test_the_best_of_several_candidates_is_kept():
    def draw(count: int) -> float:
        options = {"candidates": count, "generator": torch.Generator().manual_seed(0)}
        chosen = planner(RelaxedSafe(), steps=6, **options)
        return float(chosen.propose(START.double()).evidence.longest)

    assert draw(16) < draw(1)


@pytest.mark.filterwarnings("ignore:.*not known to be convex")
def test_refinement_brings_a_plan_inside_a_concave_set(monkeypatch):
    room = {"room": Superellipse((4.0, 5.5), (3.4, 4.9), exponent=4.0, inside=True)}
    spec = Specification(room, model().observation_normaliser)
    goal = torch.tensor([6.0, 9.0, 0.0, 0.0], dtype=torch.float64)

    def straight(plan: Tensor, step: Tensor) -> Tensor:
        clean = torch.zeros_like(plan)
        clean[..., 2] = -1.0  # along the wall, outside of the room
        clean[..., 3] = torch.linspace(-0.5, 0.5, H).to(plan)
        return clean

    plan_filter = PlanFilter(RobustSafe(), spec, NU, 0.01)
    ladder = sampling_steps(cosine_schedule(T), 1)  # linearised at pure noise

    def margin() -> float:
        generator = torch.Generator().manual_seed(0)
        options = {"goal": goal, "generator": generator}
        found = DiffusionPlanner(model(straight), ladder, spec, plan_filter, **options)
        start = torch.tensor([[2.0, 4.0, 0.0, 0.0]]).double()
        return float(found.propose(start).evidence.margins)

    assert margin() >= 0.0
    monkeypatch.setattr("safectl.planners.diffusion.REFINEMENTS", 0)
    assert margin() < -0.01


def test_guidance_climbs_the_value_and_leaves_the_last_steps_alone():
    def value(plan: Tensor, step: Tensor) -> Tensor:
        return plan[..., 2].sum((-1, -2))

    steps = sampling_steps(cosine_schedule(T))
    guide = Guidance(value)
    plans = torch.zeros(1, H, 6)
    imposed = Imposed(plans, torch.zeros(H, 6, dtype=torch.bool))
    assert float(guide.on(plans, steps[100], imposed)[..., 2].mean()) > 0.0
    assert torch.equal(guide.on(plans, steps[-1], imposed), plans)


def test_guidance_moves_plans_of_the_deterministic_sampler_as_well():
    def value(plan: Tensor, step: Tensor) -> Tensor:
        return plan[..., 2].sum((-1, -2))

    plans = torch.zeros(1, H, 6)
    imposed = Imposed(plans, torch.zeros(H, 6, dtype=torch.bool))
    one, other = (sampling_steps(cosine_schedule(T), eta=eta)[100] for eta in (0.0, 1.0))
    moved = Guidance(value).on(plans, one, imposed)
    assert one.noise == 0.0
    assert float(moved[..., 2].min()) > 0.0
    assert torch.equal(moved, Guidance(value).on(plans, other, imposed))


def test_a_roof_over_height_and_speed_keeps_guided_plans_of_a_hopper_low():
    whole = Normaliser(
        torch.cat([torch.zeros(3), torch.tensor([1.3]), torch.zeros(10)]).double(),
        torch.cat([torch.ones(3), torch.tensor([0.15]), torch.ones(10)]).double(),
        is_bounded=False,
    )

    def leap(plan: Tensor, step: Tensor) -> Tensor:
        return torch.full_like(plan, 2.0)  # 1.6 m high and rising by 2 m/s

    def height(plan: Tensor, step: Tensor) -> Tensor:
        return plan[..., 3].sum(-1)

    hopper = PlanModel(leap, whole, 3, 32, cosine_schedule(20), clips=False, period=1.0)
    roofs = {
        "S-SPEC": roof(1.5, position=0),
        "C-SPEC": roof(1.6, position=0, velocity=6, lookahead_s=0.1),
    }
    spec = Specification(roofs, hopper.observation_normaliser, coordinates=(0, 6))
    start = torch.tensor([[1.25, *[0.0] * 10]]).double()

    def draw(plan_filter: PlanFilter | None) -> DiffusionPlanner:
        ladder = sampling_steps(hopper.kept)
        return DiffusionPlanner(hopper, ladder, spec, plan_filter, guidance=Guidance(height))

    assert float(draw(None).propose(start).evidence.margins.max()) < -0.05
    kept = draw(PlanFilter(RobustSafe(), spec, 3, 1.0)).plan(start)
    assert kept.certificate.status.tolist() == [Status.CORRECTED]
    assert float(kept.certificate.margin) == pytest.approx(0.01, abs=1e-6)
    assert float(kept.certificate.risk) == 0.0
    assert float(kept.states[0, :, 0].max()) < 1.5


def test_velocities_follow_the_corrected_positions():
    found = planner(RobustSafe(), steps=8, velocities=(2, 3)).propose(START.double()).states
    rate = (found[0, 2:, :2] - found[0, :-2, :2]) / 0.02
    torch.testing.assert_close(found[0, 1:-1, 2:], rate)


@pytest.mark.filterwarnings("ignore:.*not known to be convex")
def test_a_speed_barrier_is_measured_at_the_velocities_that_are_returned():
    slow = {"speed": speed_limit(0.5, velocities=(2, 3))}
    spec = Specification(slow, model().observation_normaliser)
    found = planner(steps=8, velocities=(2, 3), specification=spec).propose(START.double())
    fastest = torch.linalg.vector_norm(found.states[0, :, 2:], dim=-1).amax()
    assert float(found.evidence.segment_margin) == pytest.approx(0.5 - float(fastest))
    assert float(found.evidence.margins) < -1.0


def test_tightening_turns_a_trapped_plan_into_one_that_is_safe_on_its_way():
    spec = specification()

    def trapped(tightenings: int) -> float:
        variant = RelaxedSafe(margin=0.05)
        plan_filter = PlanFilter(variant, spec, NU, 0.01, tightenings=tightenings)
        ladder = sampling_steps(cosine_schedule(T), 8, eta=0.0)
        found = DiffusionPlanner(model(), ladder, spec, plan_filter, GOAL.double())
        return float(found.propose(START.double()).evidence.segment_margin)

    assert trapped(0) < 0.0 < trapped(400)

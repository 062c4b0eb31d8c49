"""Benchmarks of barrier-function diffusion planning: safety, traps, score and cost.

Plans come from the shipped model of the small maze; times of the filter from the full network of
the large maze with random weights, whose cost does not depend on them.
"""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import osqp
import torch
from scipy import sparse
from torch import Tensor

from safectl.models import TemporalUnet
from safectl.planners import (
    Normaliser,
    PlanFilter,
    PlanModel,
    RobustSafe,
    Specification,
    cosine_schedule,
    sampling_steps,
)
from safectl.planners.schedule import FINISHED
from safectl.seed import torch_generator
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.bench.timing import time_calls
from safectl_agents.diffusion.compare import SHIPPED, compare, draw_starts, set_up
from safectl_agents.diffusion.methods import make_planner
from safectl_agents.diffusion.report import REFERENCE
from safectl_agents.diffusion.specifications import named_barriers

PLANS, SEED = 100, 0
STEPS = 16
_HORIZON, _NU = 384, 2
_CALLS = 20
_ALL_STEPS, _FEW_PLANS = 256, 8


def safe_plans() -> Measurement:
    """Return the smallest share of plans that meet both specifications, of RoS, ReS and TVS."""
    table = _table(("diffuser", "ros", "res", "tvs", "best"))
    value = min(table[name]["waypoints_safe"] for name in ("ros", "res", "tvs"))
    return Measurement(value, details=_details(table))


def diffuser_margin() -> Measurement:
    """Return the larger of the smallest margins of both specifications without a filter."""
    table = _table(("diffuser",))
    return Measurement(
        max(table["diffuser"]["s_spec"], table["diffuser"]["c_spec"]), details=_details(table)
    )


def segments_safe() -> Measurement:
    """Return the share of the best variant's plans that are safe between waypoints as well."""
    table = _table(("res", "best"))
    return Measurement(table["best"]["plans_safe"], details=_details(table))


def trap_rate() -> Measurement:
    """Return the share of the best variant's plans with a jump."""
    table = _table(("res", "tvs", "best"))
    return Measurement(table["best"]["trap_rate"], details=_details(table))


def score() -> Measurement:
    """Return the score of the best variant's plans over that of plans without a filter."""
    table = _table(("diffuser", "ros", "res", "tvs", "best"))
    ours, theirs = table["best"]["score"], table["diffuser"]["score"]
    return Measurement(ours / theirs, details=_details(table))


def filter_overhead(batch: int) -> Measurement:
    """Return the time of the filter over that of the denoiser for one step of a batch."""
    model, plan_filter = _full_size()
    plan = _noise(batch)
    step, depth = sampling_steps(model.kept)[200], plan_filter.depth(plan)
    index = torch.full((batch,), step.at)
    with torch.no_grad():
        ours = time_calls(lambda: plan_filter.correct(plan, plan, step, depth), calls=_CALLS)
        theirs = time_calls(lambda: model.denoiser(plan, index), calls=_CALLS)
    details = {
        **ours.as_details("filter"),
        **theirs.as_details("denoiser"),
        "seed": SEED,
        "batch": batch,
        "horizon": _HORIZON,
    }
    return Measurement(ours.median / theirs.median, details=details)


def filter_vs_osqp() -> Measurement:
    """Compare one filtered step of a plan with one OSQP solve per state."""
    model, plan_filter = _full_size()
    plan = _noise(1)
    proposal, step = plan + 0.05 * _noise(1).flip(1), sampling_steps(model.kept)[200]
    depth = plan_filter.depth(plan)
    ours = time_calls(lambda: plan_filter.correct(plan, proposal, step, depth), calls=_CALLS)
    theirs = time_calls(lambda: _osqp_loop(plan_filter, plan, proposal), calls=3, warm_up=1)
    expected = torch.from_numpy(_osqp_loop(plan_filter, plan, proposal))
    found = plan_filter.correct(plan, proposal, step, depth)[0, :, _NU : _NU + 2]
    details = {
        **ours.as_details("filter"),
        **theirs.as_details("osqp_loop"),
        "largest_difference": float((found.double() - expected).abs().max()),
        "seed": SEED,
        "states": _HORIZON,
    }
    ratio = theirs.median / ours.median
    return Measurement(ratio, ours=ours.median, theirs=theirs.median, details=details)


def few_steps_vs_all() -> Measurement:
    """Compare the time of plans with 16 DDIM steps and with 256 DDPM steps, both filtered.

    The shipped network knows 64 noise levels; of the 256 each takes that of its nearest.
    """
    setup = set_up(SHIPPED)
    starts = draw_starts(setup, _FEW_PLANS, seed=SEED)
    coarse = setup.model
    ratio = _ALL_STEPS // len(coarse.kept)
    fine = replace(
        coarse,
        kept=cosine_schedule(_ALL_STEPS),
        denoiser=lambda plan, at: coarse.denoiser(plan, ((at + 1) // ratio - 1).clamp(min=0)),
    )
    seconds, margins, longest = {}, {}, {}
    for name, model, count, eta in (
        ("ddim_16", coarse, STEPS, 0.0),
        ("ddpm_256", fine, None, 1.0),
    ):
        planner = make_planner(
            "ros", model, setup.specification, setup.goal, steps=count, eta=eta, seed=SEED
        )
        started = time.perf_counter()
        evidence = planner.propose(starts).evidence
        seconds[name], margins[name] = time.perf_counter() - started, float(evidence.margins.min())
        longest[name] = float(evidence.longest.mean())
    details = {
        "seed": SEED,
        "world": setup.world,
        "plans": _FEW_PLANS,
        "seconds": seconds,
        "smallest_margin": margins,
        "longest_step": longest,
        "horizon": coarse.horizon,
    }
    ours, theirs = seconds["ddim_16"], seconds["ddpm_256"]
    safe = min(margins.values()) >= 0.0
    return Measurement(theirs / ours if safe else 0.0, ours=ours, theirs=theirs, details=details)


def _table(methods: tuple[str, ...]) -> dict[str, dict[str, float]]:
    setup = set_up(SHIPPED)
    starts = draw_starts(setup, PLANS, seed=SEED)
    found = compare(setup, starts, methods, steps=STEPS, seed=SEED)
    return {name: compared.row(STEPS) for name, compared in found.items()}


def _details(table: dict[str, dict[str, float]]) -> dict[str, object]:
    return {
        "world": "umaze, T = 64, H = 128",
        "seed": SEED,
        "sampler_steps": STEPS,
        "methods": table,
        "reference": REFERENCE,
    }


def _full_size() -> tuple[PlanModel, PlanFilter]:
    """Return the network of the large maze with random weights, and its filter."""
    low = torch.tensor([-1.0, -1.0, 0.39643136, 0.44179875, -5.2262554, -5.2262554])
    high = torch.tensor([1.0, 1.0, 7.2163844, 10.219488, 5.2262554, 5.2262554])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = TemporalUnet(6).eval().requires_grad_(False)
    normaliser = Normaliser(0.5 * (low + high), 0.5 * (high - low))
    model = PlanModel(network, normaliser, _NU, _HORIZON, cosine_schedule(256), True, 0.01)
    specification = Specification(named_barriers("large"), model.observation_normaliser)
    return model, PlanFilter(RobustSafe(), specification, _NU, model.period)


def _noise(batch: int) -> Tensor:
    return torch.randn(batch, _HORIZON, 6, generator=torch_generator(SEED, "noise"))


def _osqp_loop(plan_filter: PlanFilter, plan: Tensor, proposal: Tensor) -> np.ndarray:
    """Solve the program of every state by itself, as a loop over a solver does."""
    state = plan[0, :, _NU:].double()
    linear = plan_filter.specification.linearise(state)
    offset, _ = plan_filter.invariance.condition(
        linear.value, torch.ones_like(linear.value), FINISHED
    )
    here = state[:, :2].numpy()
    wanted = proposal[0, :, _NU : _NU + 2].double().numpy() - here
    found = np.empty((_HORIZON, 2))
    hessian, upper = sparse.identity(2, format="csc"), np.full(2, np.inf)
    for row in range(_HORIZON):
        solver = osqp.OSQP()
        solver.setup(
            hessian,
            -wanted[row],
            sparse.csc_matrix(linear.gradient[:, row].numpy()),
            -offset[:, row].numpy(),
            upper,
            verbose=False,
            eps_abs=1e-6,
            eps_rel=1e-6,
        )
        found[row] = here[row] + solver.solve().x
    return found


_higher = partial(Benchmark, better="higher", quick=False)
_lower = partial(Benchmark, better="lower", quick=False)

SAFEDIFFUSER = (
    _higher(
        name="safediffuser.safe_plans",
        summary="share of 100 plans meeting both specifications at all states, least of 3 filters",
        unit="1",
        baseline="all; umaze, 16 steps, details beside the reference table",
        target=1.0,
        measure=safe_plans,
    ),
    _lower(
        name="safediffuser.diffuser_margin",
        summary="smallest margin of 100 plans without a filter, the better of S-SPEC and C-SPEC",
        unit="1",
        baseline="-0.5: without a filter plans go through both obstacles",
        target=-0.5,
        measure=diffuser_margin,
    ),
    _higher(
        name="safediffuser.segments_safe",
        summary="share of 100 plans of the best variant that are safe between states as well",
        unit="1",
        baseline="all; ReS in the details",
        target=1.0,
        measure=segments_safe,
    ),
    _lower(
        name="safediffuser.trap_rate",
        summary="share of 100 plans of the best variant with a step longer than 0.2",
        unit="1",
        baseline="2 %; SafeDiffuser ReS 72 %, SafeFlowMatcher 0 % in the large maze",
        target=0.02,
        measure=trap_rate,
    ),
    _higher(
        name="safediffuser.score",
        summary="score of following 100 plans of the best variant once, without a safeguard",
        unit="1",
        baseline="plans without a filter, same starts and model: the ratio",
        target=0.95,
        measure=score,
    ),
    _lower(
        name="safediffuser.filter_overhead_1",
        summary="time of the filter over that of the denoiser, one plan of the large maze",
        unit="1",
        baseline="a tenth",
        target=0.10,
        measure=partial(filter_overhead, 1),
    ),
    _lower(
        name="safediffuser.filter_overhead_64",
        summary="time of the filter over that of the denoiser, 64 plans of the large maze",
        unit="1",
        baseline="a twentieth",
        target=0.05,
        measure=partial(filter_overhead, 64),
    ),
    _higher(
        name="safediffuser.filter_vs_osqp",
        summary="one filtered step of a plan of 384 states",
        unit="x",
        baseline="one OSQP solve per state to 1e-6",
        target=20.0,
        measure=filter_vs_osqp,
    ),
    _higher(
        name="safediffuser.few_steps_vs_all",
        summary="time of 8 filtered umaze plans with 16 DDIM steps, zero where a plan is unsafe",
        unit="x",
        baseline="256 DDPM steps, same network and filter",
        target=10.0,
        measure=few_steps_vs_all,
    ),
)

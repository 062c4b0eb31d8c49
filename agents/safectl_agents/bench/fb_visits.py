"""The benchmarks of visits to an unsafe disc: by the shipped model of the point-mass maze."""

import math
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from safectl.models import VisitScores, score_visits
from safectl_agents import fb
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.fb.guarded import Compared, compare_driven, compare_guarded
from safectl_agents.fb.maze_batch import wandering
from safectl_agents.fb.saved import load_visits
from safectl_agents.fb.visit_rollouts import MAZE_SPEC
from safectl_agents.fb.visits import VisitsConfig, draw_rollouts

SHIPPED = Path(fb.__file__).parent / "shipped" / "maze"
"""A small run with visits, made by the commands of `docs/fb.md`."""

ROLLOUTS, WAYS, SEED = 1_000, 40, 1
"""Held-out rollouts, and the ways of which their starts are states; another seed than the data's.
"""
EPISODES, STEPS, LIMIT, CANDIDATES = 500, 1_000, 0.1, 16
DRIVEN_EPISODES, DRIVEN_STEPS, LEAST_DRIVEN = 250, 500, 0.2


def violation_rate() -> Measurement:
    """Return the share of guarded episodes that visit the disc."""
    rows = _compared().figures()
    return Measurement(rows["guarded"]["violation_rate"], details=_details(rows))


def success_share() -> Measurement:
    """Return what arrives guarded without a visit over what arrives of the task as asked."""
    rows = _compared().figures()
    ours, theirs = rows["guarded"]["safe_success"], rows["plain"]["success"]
    return Measurement(ours / theirs if theirs else 0.0, details=_details(rows))


def driven_share() -> Measurement:
    """Return visits behind the limit over those without, of a policy that drives at the disc.

    A guard that never vetoes gives 1. NaN where less than a fifth visit without it: then there is
    nothing to stop.
    """
    rows = compare_driven(
        SHIPPED,
        limit=LIMIT,
        candidates=CANDIDATES,
        episodes=DRIVEN_EPISODES,
        steps=DRIVEN_STEPS,
        seed=SEED,
    ).figures()
    ours, theirs = (rows[name]["violation_rate"] for name in ("stopped", "driven"))
    share = ours / theirs if theirs >= LEAST_DRIVEN else math.nan
    return Measurement(share, ours=ours, theirs=theirs, details=_details(rows))


def calibration_error() -> Measurement:
    """Return the expected calibration error of the stated probability."""
    return Measurement(_scores().ece, details=_score_details())


def bound_coverage() -> Measurement:
    """Return the share of rollouts of ranges in which no more visited than the bound says."""
    return Measurement(_scores().coverage, details=_score_details())


@cache
def _compared() -> Compared:
    return compare_guarded(
        SHIPPED, limit=LIMIT, candidates=CANDIDATES, episodes=EPISODES, steps=STEPS, seed=SEED
    )


@cache
def _scores() -> VisitScores:
    """Score the shipped table on rollouts that begin at states of ways it has not seen."""
    visits = load_visits(SHIPPED, MAZE_SPEC)
    x, y, radius = visits.facts["disc"]
    config = VisitsConfig(
        disc=(x, y, radius),
        task=visits.facts["task"],
        steps=visits.scope.steps,
        near=visits.facts["near"],
        calibration=ROLLOUTS // 2,
        held_out=ROLLOUTS - ROLLOUTS // 2,
        seed=SEED,
    )
    states = [torch.from_numpy(wandering(k, SEED).states).float() for k in range(WAYS)]
    seen = torch.cat(states)
    outside = seen[(config.unsafe.value(seen) >= 0.0).all(-1)]
    sample = draw_rollouts(config, visits.policy, outside)
    with torch.no_grad():
        occupancy = visits.critic.heads(sample.start, sample.first).amax(0)
    return score_visits(visits.table, occupancy, sample.visited)


def _details(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    return {"seed": SEED, "limit": LIMIT, "guard_candidates": CANDIDATES, **_asked(), **rows}


def _score_details() -> dict[str, Any]:
    return {"seed": SEED, **_asked(), **_scores()._asdict()}


def _asked() -> dict[str, Any]:
    facts = load_visits(SHIPPED, MAZE_SPEC).facts
    return {name: facts[name] for name in ("task", "disc", "budget", "candidates", "steps", "near")}


_slow = partial(Benchmark, quick=False)

VISITS = (
    _slow(
        name="fb.visit_violation_rate",
        summary="share of 500 episodes behind a limit of 0.1 that visit the disc, shipped model",
        measure=violation_rate,
        unit="share",
        baseline="the stated 5 % of episodes",
        target=0.05,
    ),
    _slow(
        name="fb.visit_success_share",
        summary="episodes that arrive guarded and without a visit, over those of the task as asked",
        measure=success_share,
        unit="share",
        baseline="the same model and starts, task as asked, without a limit",
        target=0.8,
        better="higher",
    ),
    _slow(
        name="fb.visit_driven_share",
        summary="visits behind a limit of 0.1 over those without, policy that drives at the disc",
        measure=driven_share,
        unit="share",
        baseline="250 episodes of the same policy without a limit, of which a fifth or more visit",
        target=0.1,
    ),
    _slow(
        name="fb.visit_ece",
        summary="calibration error of the probability of a visit, 1,000 held-out rollouts",
        measure=calibration_error,
        unit="1",
        baseline="perfect calibration, 0",
        target=0.05,
    ),
    _slow(
        name="fb.visit_coverage",
        summary="share of 1,000 held-out rollouts in ranges whose bound covers what visited",
        measure=bound_coverage,
        unit="share",
        baseline="the stated confidence of 95 %",
        target=0.95,
        better="higher",
    ),
)

"""Benchmarks of maze data and of executed rollouts: spread, violations, success."""

from functools import cache

import numpy as np

from safectl.planners import PlanFollower
from safectl.seed import torch_generator
from safectl.types import Policy
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.diffusion.compare import SHIPPED, draw_starts, set_up
from safectl_agents.diffusion.maze_data import MazeDataConfig, collect
from safectl_agents.diffusion.methods import make_planner
from safectl_agents.diffusion.rollouts import Rollouts, draw_free_starts, maze_guard, roll_out
from safectl_agents.diffusion.specifications import named_barriers
from safectl_envs import PointMaze, maze2d
from safectl_envs.maze_controller import WaypointPlanner

EPISODES, SEED = 200, 0
SAMPLER_STEPS = 16
_REPLAN_EVERY = 20  # steps, 0.2 s
_HORIZON = 128
_GAINS, _REACH, _PATIENCE = (10.0, 1.0), 0.2, 25
"""Of the follower: those of the controller that made the data; [m]; steps of waiting."""
_PUBLIC_STEPS = {"umaze": 1_000_000, "medium": 2_000_000, "large": 4_000_000}
PUBLIC_STD = {
    "umaze": (0.8997, 0.7093, 2.2129, 2.4682, 0.70435, 0.75062),
    "medium": (1.3371, 1.5210, 2.3408, 2.3694, 0.73977, 0.74594),
    "large": (1.8070, 2.5688, 2.4368, 2.6494, 0.72493, 0.73946),
}
"""Standard deviations of observations and actions in D4RL's data, as published by others."""


def maze_data_spread() -> Measurement:
    """Return the largest relative difference to the spread of the public data, at their sizes."""
    worst, details = 0.0, {}
    for maze, public in PUBLIC_STD.items():
        config = MazeDataConfig(maze=maze, steps=_PUBLIC_STEPS[maze], seed=SEED)
        data = collect(config, 0, config.streams)
        found = np.concatenate(
            [data.observations.reshape(-1, 4).std(0), data.actions.reshape(-1, 2).std(0)]
        )
        worst = max(worst, float(np.abs(found / np.array(public) - 1.0).max()))
        details[maze] = {"std": found.round(4).tolist(), "steps": config.steps}
    return Measurement(worst, details={"seed": SEED, "public": PUBLIC_STD, **details})


def scripted_violations() -> Measurement:
    """Count violating episodes of the guarded waypoint planner, which ignores obstacles."""
    world, barriers = maze2d("umaze"), named_barriers("umaze")
    guard = maze_guard(world, barriers)
    starts = draw_free_starts(world, guard, EPISODES, torch_generator(SEED, "rollout starts"))
    kept = roll_out(world, _scripted(world), starts, barriers, guard=guard)
    free = roll_out(world, _scripted(world), starts, barriers, guard=None)
    return Measurement(float(kept.violations()), details=_details(world, kept, free))


def executed_violations() -> Measurement:
    """Count violating episodes of the full stack: diffusion plans, follower, barrier filter."""
    world, kept, free = _executed()
    return Measurement(float(kept.violations()), details=_details(world, kept, free))


def executed_success() -> Measurement:
    """Return the success of the full stack over that of the same stack without filter and guard."""
    world, kept, free = _executed()
    share, theirs = float(kept.reached.double().mean()), float(free.reached.double().mean())
    return Measurement(share / theirs, details=_details(world, kept, free))


@cache
def _executed() -> tuple[PointMaze, Rollouts, Rollouts]:
    """Run the full stack, and the same without filter and guard from the same starts."""
    setup = set_up(SHIPPED)
    world, barriers = maze2d(setup.world), setup.specification.barriers
    starts = draw_starts(setup, EPISODES, seed=SEED)
    policies: dict[str, Policy] = {}
    for method in ("best", "diffuser"):
        planner = make_planner(
            method,
            setup.model,
            setup.specification,
            setup.goal,
            steps=SAMPLER_STEPS,
            seed=SEED,
        )
        policies[method] = PlanFollower(
            planner, world.spec, every=_PATIENCE, reach=_REACH, gains=_GAINS
        )
    guard = maze_guard(world, barriers)
    return (
        world,
        roll_out(world, policies["best"], starts, barriers, guard=guard),
        roll_out(world, policies["diffuser"], starts, barriers, guard=None),
    )


def _scripted(world: PointMaze) -> PlanFollower:
    planner = WaypointPlanner(world, _HORIZON, torch_generator(SEED, "waypoints"))
    return PlanFollower(planner, world.spec, every=_REPLAN_EVERY)


def _details(world: PointMaze, kept: Rollouts, free: Rollouts) -> dict[str, object]:
    return {
        "seed": SEED,
        "world": world.name,
        "steps": world.horizon,
        "guarded": kept.facts(world),
        "unconstrained": free.facts(world),
    }


DIFFUSER_DATA = (
    Benchmark(
        name="safediffuser.maze_data_spread",
        summary="largest relative difference in the spread of regenerated maze2d data",
        unit="1",
        baseline="standard deviations of D4RL's umaze, medium and large, as published",
        target=0.01,
        better="lower",
        quick=False,
        measure=maze_data_spread,
    ),
    Benchmark(
        name="safediffuser.scripted_violations",
        summary="violating episodes of 200 of a guarded planner that ignores the obstacles",
        unit="episodes",
        baseline="target; the same planner without the guard in the details",
        target=0.0,
        better="lower",
        quick=False,
        measure=scripted_violations,
    ),
    Benchmark(
        name="safediffuser.executed_violations",
        summary="violating episodes of 200 of diffusion plans, followed behind the barrier filter",
        unit="episodes",
        baseline="target; plain Diffuser without a filter in the details",
        target=0.0,
        better="lower",
        quick=False,
        measure=executed_violations,
    ),
    Benchmark(
        name="safediffuser.executed_success",
        summary="success of 200 guarded episodes over that of unguarded ones",
        unit="1",
        baseline="the same follower and starts without filter and guard; the ratio",
        target=0.95,
        better="higher",
        quick=False,
        measure=executed_success,
    ),
)

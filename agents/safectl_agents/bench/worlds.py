"""Benchmarks of the environments: speed, and violations under a guard with a perfect model."""

import time
from typing import NamedTuple

import gymnasium
import torch

import safectl_envs
from safectl.safeguards import BarrierQP
from safectl.seed import derive, torch_generator
from safectl_agents.bench.benchmark import Measurement
from safectl_envs import BatchedEnv, DoubleIntegrator, PointHazard, World

COPIES = 4096
_STEPS = 300
_THEIR_STEPS = 3000


def point_hazard_vs_point_goal() -> Measurement:
    """Step 4,096 copies of PointHazard with random actions, against Safety-Gymnasium PointGoal1."""
    env = BatchedEnv(PointHazard(), COPIES, torch_generator(0, "throughput"))
    draw = torch_generator(0, "throughput actions")
    actions = 2.0 * torch.rand(8, COPIES, 2, generator=draw) - 1.0
    for index in range(20):
        env.step(actions[index % 8])
    started = time.perf_counter()
    for index in range(_STEPS):
        env.step(actions[index % 8])
    ours = COPIES * _STEPS / (time.perf_counter() - started)
    theirs = _single_steps_per_second("SafetyPointGoal1-v0")
    details = {
        "seed": 0,
        "copies": COPIES,
        "steps": COPIES * _STEPS,
        "their_steps": _THEIR_STEPS,
        "threads": torch.get_num_threads(),
        "unit_of_both": "steps/s",
    }
    return Measurement(ours / theirs, ours, theirs, details=details)


def double_integrator_violations() -> Measurement:
    """Count violations beyond 1e-6 m in 1,000,000 guarded random steps of DoubleIntegrator."""
    return _violations(DoubleIntegrator(), copies=1000, steps=1000)


def point_hazard_violations() -> Measurement:
    """Count violations beyond 1e-6 m in 100,000 guarded random steps of PointHazard."""
    return _violations(PointHazard(), copies=500, steps=200)


class _Run(NamedTuple):
    cost: float
    smallest: float
    below: int
    corrected: float


_TOLERANCE = 1e-6


def _violations(world: World, *, copies: int, steps: int) -> Measurement:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        guarded = _run(world, copies, steps, guarded=True)
        free = _run(world, copies, steps // 10, guarded=False)
    finally:
        torch.set_num_threads(threads)
    details = {
        "steps": copies * steps,
        "seed": 0,
        "smallest_barrier_m": guarded.smallest,
        "total_cost": guarded.cost,
        "corrected_share": round(guarded.corrected, 4),
        "unguarded_cost_per_1000_steps": round(1000.0 * free.cost / (copies * (steps // 10)), 2),
    }
    return Measurement(float(guarded.below), details=details)


def _run(world: World, copies: int, steps: int, *, guarded: bool) -> _Run:
    """Random actions, held for ten steps so that they lead somewhere."""
    env = BatchedEnv(world, copies, torch_generator(0, "violations"))
    guard = BarrierQP(world.barrier, world.dynamics, fallback=world.fallback)
    generator = torch_generator(0, "violation actions")
    action = torch.zeros(copies, world.spec.nu)
    cost = corrected = 0.0
    smallest, below = float("inf"), 0
    for index in range(steps):
        if index % 10 == 0:
            action = 2.0 * torch.rand(copies, world.spec.nu, generator=generator) - 1.0
        executed = action
        if guarded:
            decision = guard.filter(env.model_state, action)
            executed = decision.action
            corrected += float((decision.certificate.status > 0).float().mean()) / steps
        cost += float(env.step(executed).cost.sum())
        barrier = world.barrier.value(env.model_state).amin(-1)
        smallest = min(smallest, float(barrier.min()))
        below += int((barrier < -_TOLERANCE).sum())
    return _Run(cost, smallest, below, corrected)


def _single_steps_per_second(name: str) -> float:
    assert safectl_envs, "registers the tasks"
    env = gymnasium.make(name, disable_env_checker=True)
    env.reset(seed=derive(0, name) >> 32)
    env.action_space.seed(0)
    started = time.perf_counter()
    for _ in range(_THEIR_STEPS):
        *_, terminated, truncated, _info = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    elapsed = time.perf_counter() - started
    env.close()
    return _THEIR_STEPS / elapsed

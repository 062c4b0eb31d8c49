"""Rollouts of one policy in many copies of the point-mass maze, and what they visited."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from safectl.barriers import Discs
from safectl.errors import RangeError
from safectl.spec import Signal, Spec
from safectl.types import Policy, Status
from safectl_agents.fb.maze_batch import Array, MazeBatch
from safectl_agents.fb.point_mass_maze import ARENA, GOALS

REACHED_M = 0.03
"""Distance from a goal at which its reward is a tenth, and from which it counts as reached [m]."""

_TINY_M = 1e-6
"""Least distance from a centre that has a direction [m]."""

MAZE_SPEC = Spec(
    (
        *(Signal(name, "m", -ARENA, ARENA) for name in ("x", "y")),
        *(Signal(name, "m/s", -0.1, 0.1) for name in ("vx", "vy")),
    ),
    tuple(Signal(name, "1", -1.0, 1.0) for name in ("push_x", "push_y")),
    0.02,
)
"""Signals of the maze: position and terminal velocity per axis, and pushes of 0.1 N."""


class Rollouts(NamedTuple):
    """What happened in every rollout.

    Attributes:
        states: Observations, shape (steps + 1, rollouts, 4), [m, m/s].
        visited: Whether a state after the start was in the unsafe set, shape (rollouts,).
        corrected: Share of actions that a guard changed or replaced by its fallback.
        fallbacks: Share of actions that were its fallback.
    """

    states: Float[Tensor, "rows rollouts 4"]
    visited: Bool[Tensor, " rollouts"]
    corrected: float
    fallbacks: float

    def reached(self, task: str) -> Bool[Tensor, " rollouts"]:
        """Return which rollouts were at the goal of a task at some step."""
        goal = torch.tensor(GOALS[task])
        away = (self.states[..., :2] - goal).norm(dim=-1)
        found: Tensor = (away <= REACHED_M).any(0)
        return found


class Driver:
    """Pushes straight at the nearest disc with all it has: what a guard is to stop.

    Args:
        unsafe: The discs.
    """

    def __init__(self, unsafe: Discs) -> None:
        self._unsafe = unsafe

    def act(self, observation: Shaped[Tensor, "..."], /) -> Float[Tensor, "batch nu"]:
        """Return pushes towards it, the larger one of size 1."""
        nearest = self._unsafe.value(observation).argmin(-1)
        way = self._unsafe.centres.to(observation)[nearest] - observation[:, :2]
        return way / way.abs().amax(-1, keepdim=True).clamp(min=_TINY_M)


def roll_out(
    env: VectorEnv[Array, Array, Array],
    policy: Policy,
    unsafe: Discs,
    *,
    steps: int,
    start: Float[Tensor, "rollouts 4"] | None = None,
    first: Float[Tensor, "rollouts 2"] | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Rollouts:
    """Run every copy for some steps.

    Args:
        env: Copies of the maze, behind a `VectorGuard` or not.
        policy: Proposes actions.
        unsafe: What counts as a visit: a negative signed distance.
        steps: Of a rollout.
        start: States; those of the domain where absent.
        first: First actions; those of the policy where absent.
        seed: Of the starts of the domain.
        progress: Called after every step with its number.
    """
    options = None if start is None else {"start": start.numpy()}
    observation, _ = env.reset(seed=seed, options=options)
    seen, changed, replaced = [torch.from_numpy(observation)], 0.0, 0.0
    for step in range(steps):
        action = policy.act(seen[-1]) if step or first is None else first
        observation, _, _, _, info = env.step(action.numpy())
        seen.append(torch.from_numpy(observation))
        if "status" in info:
            changed += float((info["status"] != Status.KEPT).mean()) / steps
            replaced += float((info["status"] == Status.FALLBACK).mean()) / steps
        if progress is not None:
            progress(step + 1)
    states = torch.stack(seen)
    return Rollouts(states, visits_of(states[1:], unsafe), changed, replaced)


def starts_outside(unsafe: Discs, count: int, seed: int) -> Float[Tensor, "rollouts 4"]:
    """Return starts of the domain outside the unsafe set; fewer where it covers some.

    Raises:
        RangeError: If it covers all of them.
    """
    start = torch.from_numpy(MazeBatch(count).reset(seed=seed)[0])
    outside = start[(unsafe.value(start) >= 0.0).all(-1)]
    if not len(outside):
        expected = "a set that leaves some of the starts of the domain free"
        raise RangeError("unsafe set", value=unsafe.centres.tolist(), expected=expected)
    return outside


def visits_of(states: Float[Tensor, "rows rollouts 4"], unsafe: Discs) -> Bool[Tensor, " rollouts"]:
    """Return which rollouts were in the unsafe set at some step."""
    rows, copies = states.shape[:2]
    inside = (unsafe.value(states.flatten(0, 1)) < 0.0).any(-1)
    return inside.reshape(rows, copies).any(0)

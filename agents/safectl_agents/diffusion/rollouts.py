"""Executed episodes of a maze: safety where it counts, at the simulator's steps and in between."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.barriers import Stack
from safectl.errors import RangeError
from safectl.planners import Normaliser, Specification
from safectl.safeguards import BarrierQP
from safectl.types import Barrier, Policy, Safeguard, Status
from safectl_agents.diffusion.metrics import normalised_score
from safectl_envs import ObstacleRoom, PointMaze

_TRIES = 100  # batches of starts to draw from; after that the specification fills the maze


@runtime_checkable
class Forgetful(Protocol):
    """A policy with a memory that ends with the episode."""

    def reset(self) -> None:
        """Forget it."""
        ...


class Rollouts(NamedTuple):
    """What happened in each episode, shape (episodes,).

    Attributes:
        total: Sum of rewards.
        margin: Bound of every barrier from below on the whole executed way, start included.
        touched: Steps at a wall.
        reached: Whether the mass was at the goal at some step.
        corrected: Share of actions that the safeguard corrected.
        fallbacks: Share of steps in which it used its fallback.
        states: Executed states, shape (episodes, steps + 1, 4).
    """

    total: Float[Tensor, " episodes"]
    margin: Float[Tensor, " episodes"]
    touched: Float[Tensor, " episodes"]
    reached: Bool[Tensor, " episodes"]
    corrected: Float[Tensor, " episodes"]
    fallbacks: Float[Tensor, " episodes"]
    states: Float[Tensor, "episodes steps1 4"]

    def violations(self) -> int:
        """Count episodes with a negative margin, NaN included, or a wall that was touched."""
        return int((~(self.margin >= 0.0) | (self.touched > 0.0)).sum())

    def facts(self, world: PointMaze) -> dict[str, float]:
        """Return the figures of a table."""
        return {
            "episodes": float(len(self.total)),
            "violations": float(self.violations()),
            "smallest_margin": float(self.margin.min()),
            "touched_a_wall": float((self.touched > 0.0).double().mean()),
            "success": float(self.reached.double().mean()),
            "score": float(normalised_score(self.total.double(), world.name).mean()),
            "corrected_share": float(self.corrected.mean()),
            "fallback_share": float(self.fallbacks.mean()),
        }


def maze_guard(
    world: PointMaze, barriers: dict[str, Barrier], *, clearance: float = 0.01
) -> BarrierQP:
    """Guard the walls of a maze and the obstacles in it, by room to brake before both.

    Args:
        world: The maze.
        barriers: Safe sets of positions, by name.
        clearance: How much earlier than an obstacle the mass stops, in the unit of its barrier.
    """
    rooms = [ObstacleRoom(barrier, clearance=clearance) for barrier in barriers.values()]
    return BarrierQP(Stack(world.barrier, *rooms), world.dynamics, fallback=world.fallback)


def draw_free_starts(
    world: PointMaze, guard: BarrierQP, count: int, generator: torch.Generator
) -> Float[Tensor, "count 4"]:
    """Draw starts from which the guard can keep its barriers.

    Raises:
        RangeError: If nearly all of the maze is forbidden.
    """
    found = world.initial(0, generator)
    for _ in range(_TRIES):
        state = world.initial(count, generator)
        free = (guard.barrier.value(state) > 0.0).all(1)
        found = torch.cat([found, state[free]])[:count]
        if len(found) == count:
            return found
    expected = f"{count} in {_TRIES * count} draws; make the obstacles smaller"
    raise RangeError("starts outside of all obstacles", value=len(found), expected=expected)


@torch.no_grad()
def roll_out(
    world: PointMaze,
    policy: Policy,
    start: Float[Tensor, "episodes 4"],
    barriers: dict[str, Barrier],
    *,
    guard: Safeguard | None,
    steps: int | None = None,
) -> Rollouts:
    """Run one episode from every start, all at once.

    Args:
        world: The maze.
        policy: Proposes actions; it is reset first if it has a memory.
        start: States.
        barriers: What the executed way is measured with, segment by segment.
        guard: Filters every action; None to execute the proposals.
        steps: Of an episode; those of the world without.

    Raises:
        RangeError: If a start violates a barrier.
    """
    specification = _physical(barriers, start)
    if bool(specification.violated(_timed(start)).any()):
        raise RangeError("start", value="inside an obstacle", expected="a start outside of all")
    if isinstance(policy, Forgetful):
        policy.reset()
    state, states = start, [start]
    zero = start.new_zeros(len(start))
    total, touched, corrected, fallbacks = zero, zero, zero, zero
    reached = zero > 0.0
    horizon = world.horizon if steps is None else steps
    for _ in range(horizon):
        action = policy.act(state)
        if guard is not None:
            decision = guard.filter(state, action)
            action, status = decision.action, decision.certificate.status
            corrected = corrected + (status == Status.CORRECTED).to(zero)
            fallbacks = fallbacks + (status == Status.FALLBACK).to(zero)
        outcome = world.step(state, action.clamp(-1.0, 1.0))
        state = outcome.state
        states.append(state)
        total, touched = total + outcome.reward, touched + outcome.cost
        reached = reached | (outcome.reward > 0.0)
    way = torch.stack(states, 1)
    margin = specification.segment_values(_timed(way)).amin(1)
    return Rollouts(total, margin, touched, reached, corrected / horizon, fallbacks / horizon, way)


def _physical(barriers: dict[str, Barrier], like: Tensor) -> Specification:
    """Compile barriers for observations as they are."""
    nx = like.shape[1]
    return Specification(barriers, Normaliser(torch.zeros(nx), torch.ones(nx)))


def _timed(state: Tensor) -> Tensor:
    """Append the time: the barriers stand still."""
    return torch.cat([state, torch.zeros_like(state[..., :1])], -1)

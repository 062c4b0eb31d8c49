"""The waypoint controller with which D4RL's maze2d data was made, for many mazes at once."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from safectl.errors import RangeError
from safectl.planners.towards import no_claim
from safectl.types import Plan
from safectl_envs.maze_layout import MazeLayout
from safectl_envs.point_maze import PointMaze

_STIFFNESS = 10.0  # action per metre to the waypoint
_DAMPING = 1.0  # action per velocity [s/m]
_REACHED = 0.1  # distance to a waypoint, and way since the last call, at which it is reached [m]
_SHIFT = 0.2  # waypoints but the last are shifted down by up to this much, per axis [m]


class Pursued(NamedTuple):
    """What the controller remembers, one row per maze.

    Attributes:
        goal: Cell of the target, as its number row by row, shape (batch,); -1 before the first.
        cell: Cell of the waypoint, shape (batch,).
        waypoint: Shape (batch, 2), [m].
        before: Position at the last call, shape (batch, 2), [m].
    """

    goal: Int64[Tensor, " batch"]
    cell: Int64[Tensor, " batch"]
    waypoint: Float[Tensor, "batch 2"]
    before: Float[Tensor, "batch 2"]


class Command(NamedTuple):
    """Actions within the limits, shape (batch, 2); which targets were reached; what to remember."""

    action: Float[Tensor, "batch 2"]
    reached: Bool[Tensor, " batch"]
    pursued: Pursued


def nothing_pursued(count: int, *, dtype: torch.dtype = torch.float64) -> Pursued:
    """Return the memory before the first call."""
    none = torch.full((count,), -1)
    return Pursued(none, none, torch.zeros(count, 2, dtype=dtype), torch.zeros(count, 2).to(dtype))


def pursue(
    layout: MazeLayout,
    pursued: Pursued,
    state: Float[Tensor, "batch 4"],
    target: Float[Tensor, "batch 2"],
    generator: torch.Generator,
) -> Command:
    """Return a = clip(10 (w - p) - v, -1, 1) with the waypoint w on a shortest path of cells.

    D4RL's `WaypointController`: a new path begins where the rounded target changes; a waypoint is
    the index of a cell, shifted by -0.2 U(0, 1) per axis, the last one that of the target's cell.

    Args:
        layout: The maze.
        pursued: What the last call returned.
        state: Positions [m] and velocities [m/s], shape (batch, 4).
        target: Targets, shape (batch, 2), [m].
        generator: Draws the shifts.
    """
    position, velocity = state[:, :2], state[:, 2:]
    goal = _cell_of(layout, target)
    is_new = goal != pursued.goal
    here = torch.where(is_new, _cell_of(layout, position), pursued.cell)
    following = layout.next_cell[goal, here]
    shift = _SHIFT * torch.rand(len(state), 2, generator=generator).to(state)
    ahead = _index_of(layout, following, state) - torch.where(
        (following != goal).unsqueeze(1), shift, 0.0
    )
    waypoint = torch.where(is_new.unsqueeze(1), ahead, pursued.waypoint)
    cell = torch.where(is_new, following, pursued.cell)

    end = _index_of(layout, goal, state)
    is_slow = (position - pursued.before).norm(dim=1) < _REACHED
    reached = ((position - end).norm(dim=1) < _REACHED) & is_slow
    aim = torch.where(reached.unsqueeze(1), end, waypoint)
    action = (_STIFFNESS * (aim - position) - _DAMPING * velocity).clamp(-1.0, 1.0)

    passed = ~reached & is_slow & ((position - aim).norm(dim=1) < _REACHED)
    # A path that was made in this call stays for one more: its second waypoint is not drawn yet.
    passed = passed & ~is_new
    cell = torch.where(passed, following, cell)
    waypoint = torch.where(passed.unsqueeze(1), ahead, waypoint)
    return Command(action, reached, Pursued(goal, cell, waypoint, position))


class WaypointPlanner:
    """Rolls the controller out towards the goal of a maze; it claims nothing about obstacles.

    Args:
        world: The maze.
        horizon: States of a plan, the first one that of the start.
        generator: Draws the shifts of the waypoints.

    Raises:
        RangeError: If the horizon is below two.
    """

    def __init__(self, world: PointMaze, horizon: int, generator: torch.Generator) -> None:
        if horizon < 2:
            raise RangeError("horizon", value=horizon, expected="at least 2")
        self.world, self.horizon, self.generator = world, horizon, generator

    def plan(self, observation: Float[Tensor, "batch 4"], /) -> Plan:
        """Return where the controller would go from every row."""
        pursued = nothing_pursued(len(observation), dtype=observation.dtype)
        target = observation.new_tensor(self.world.goal).expand(len(observation), 2)
        states, actions = [observation], []
        for _ in range(self.horizon):
            command = pursue(self.world.layout, pursued, states[-1], target, self.generator)
            pursued = command.pursued
            actions.append(command.action)
            states.append(self.world.dynamics.predict(states[-1], command.action).mean)
        return Plan(torch.stack(states[:-1], 1), torch.stack(actions, 1), no_claim(observation))


def _cell_of(layout: MazeLayout, position: Tensor) -> Tensor:
    """Return the number of the cell whose index is nearest; halves go to the even one."""
    row, column = position.round().long().unbind(1)
    return row * layout.shape[1] + column


def _index_of(layout: MazeLayout, cell: Tensor, like: Tensor) -> Tensor:
    columns = layout.shape[1]
    return torch.stack([cell // columns, cell % columns], 1).to(like)

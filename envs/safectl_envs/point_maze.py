"""D4RL's maze2d without MuJoCo: a point mass among walls, rewarded near a fixed goal."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from safectl.errors import UnknownNameError
from safectl.safeguards import Brake
from safectl.spec import Signal, Spec
from safectl_envs import canvas
from safectl_envs.braking_room import WallRoom
from safectl_envs.maze_layout import LAYOUTS, WALL_HIGH, WALL_LOW, MazeLayout
from safectl_envs.point_mass import PERIOD, PointMass, braking
from safectl_envs.world import Outcome

JITTER = 0.1
"""Starts and targets lie within this distance of the index of a free cell, per axis [m]."""
_START_SPEED = 0.1  # standard deviation per axis [m/s]
_RADIUS = 0.1  # of the mass [m]
_FAST = 5.3  # above 5 DECAY + PUSH = 5.2262554 [m/s]
_EDGE = 0.1  # how far the bounds of the positions lie beyond the free space [m]
_STEPS: Mapping[str, int] = {"umaze": 300, "medium": 600, "large": 800, "open": 150, "small": 300}


@dataclass(frozen=True)
class PointMaze:
    """A mass that is pushed through a maze: the dynamics, starts and reward of D4RL's maze2d.

    Reward: 1 within `goal_radius` of the goal, else 0. Cost: 1 while the mass touches a wall.
    A wall takes the velocity into it and no more (MuJoCo's contacts are softer); away from
    walls the step is MuJoCo's to 1e-9. The episode never terminates.

    World state = model state = observation: row, column [m], and their velocities [m/s].
    """

    layout: MazeLayout
    """Walls and goal."""
    name: str
    """What the world is called in the registry."""
    horizon: int = 300
    """Steps per episode."""
    goal_radius: float = 0.5
    """Distance to the goal that is rewarded [m]."""
    clearance: float = 1e-3
    """How much earlier the barrier stops [m]; more than float32 rounding, so that a guarded mass
    never touches a wall."""

    cost_meaning = "touching a wall"
    source = "maze2d of D4RL, layouts and point mass"

    @cached_property
    def spec(self) -> Spec:
        """Positions and velocities; forces as fractions of 100 N."""
        axes = dict(zip(("row", "column"), self.layout.shape, strict=True))
        observation = [
            Signal(name, "m", WALL_HIGH - _EDGE, size - 1.0 + WALL_LOW + _EDGE)
            for name, size in axes.items()
        ]
        observation += [Signal(f"velocity_{name}", "m/s", -_FAST, _FAST) for name in axes]
        action = tuple(Signal(f"force_{name}", "100 N", -1.0, 1.0) for name in axes)
        return Spec(tuple(observation), action, PERIOD)

    @cached_property
    def dynamics(self) -> PointMass:
        """The point mass; true wherever no wall is touched."""
        return PointMass()

    @cached_property
    def barrier(self) -> WallRoom:
        """Room to brake before the nearest walls [m]."""
        return WallRoom(self.layout, clearance=self.clearance)

    @cached_property
    def fallback(self) -> Brake:
        """Brake along the velocity, which keeps the barrier's set."""
        return Brake(self.spec, law=braking)

    @property
    def goal(self) -> tuple[int, int]:
        """Row and column of the goal [m]."""
        return self.layout.goal

    def initial(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 4"]:
        """Draw a free cell, a jitter and a small velocity per row."""
        speed = torch.randn(count, 2, generator=generator, device=generator.device)
        return torch.cat([self.draw_places(count, generator), _START_SPEED * speed], 1)

    def draw_places(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 2"]:
        """Draw positions about the indices of random free cells, as starts and targets are [m]."""
        cells = self.layout.cells.to(generator.device)
        pick = torch.randint(len(cells), (count,), generator=generator, device=generator.device)
        jitter = torch.rand(count, 2, generator=generator, device=generator.device)
        return cells[pick] + JITTER * (2.0 * jitter - 1.0)

    def step(self, state: Float[Tensor, "batch 4"], action: Float[Tensor, "batch nu"]) -> Outcome:
        """Move, stop at walls, then compare with the goal."""
        free = self.dynamics.predict(state, action).mean
        position, stopped = self.layout.collide(state[:, :2], free[:, :2])
        new = torch.cat([position, torch.where(stopped, 0.0, free[:, 2:])], 1)
        return Outcome(
            new,
            self.reward(new),
            self.layout.touches(position).to(state.dtype),
            torch.zeros_like(stopped[:, 0]),
        )

    def reward(self, state: Float[Tensor, "batch 4"]) -> Float[Tensor, " batch"]:
        """Return 1 within `goal_radius` of the goal, else 0."""
        way = state[:, :2] - state.new_tensor(self.goal)
        distance: Tensor = torch.linalg.vector_norm(way, dim=1)
        return (distance <= self.goal_radius).to(state.dtype)

    def observe(self, state: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch nx"]:
        """Return the state."""
        return state.clone()

    def picture(
        self, state: Float[Tensor, " size"], trace: Float[Tensor, "points size"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the maze from above, rows downwards, with the walls where they are met."""
        row, column, row_speed, column_speed = state.tolist()
        rows, columns = self.layout.shape
        board = canvas.Canvas(-0.7, columns - 0.7, 0.7 - rows, 0.7)
        for wall_row, wall_column in self.layout.walls.nonzero().tolist():
            left, top = wall_column + WALL_LOW + _RADIUS, -(wall_row + WALL_LOW + _RADIUS)
            board.rectangle(left, left + 1.0, top - 1.0, top, canvas.INK)
        goal = (float(self.goal[1]), -float(self.goal[0]))
        board.disc(goal, self.goal_radius, canvas.GOAL, canvas.GOAL_EDGE)
        board.line([(y, -x) for x, y in trace[:, :2].tolist()], canvas.TRACE, 3.0)
        tip = (column + 0.1 * column_speed, -row - 0.1 * row_speed)
        board.arrow((column, -row), tip, canvas.INK)
        board.disc((column, -row), _RADIUS, canvas.ROBOT)
        return board.picture()


def maze2d(maze: str) -> PointMaze:
    """Build one of D4RL's mazes by name, with its number of steps.

    Raises:
        UnknownNameError: If there is no such maze.
    """
    if maze not in LAYOUTS:
        raise UnknownNameError("maze", maze, known=tuple(LAYOUTS))
    return PointMaze(LAYOUTS[maze], f"Maze2d{maze.capitalize()}", _STEPS[maze])

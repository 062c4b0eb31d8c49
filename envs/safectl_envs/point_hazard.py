"""Drive to goals among hazards: PointGoal1 of Safety-Gym without contact physics."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from safectl.barriers import ObservedDiscs
from safectl.dynamics import Unicycle
from safectl.errors import RangeError
from safectl.safeguards import Brake
from safectl.spec import Signal, Spec
from safectl_envs import canvas
from safectl_envs.lidar import pseudo_lidar
from safectl_envs.normalised import Normalised, unit_of
from safectl_envs.placement import (
    current_goal,
    distance,
    draw_goals,
    next_goal,
    place,
    points_of,
)
from safectl_envs.unicycle_among_discs import UnicycleAmongDiscs
from safectl_envs.world import Outcome

_GOALS = 8  # per episode, then they repeat; at 1 m/s, 300 steps of 0.05 s lead to about ten goals
_BINS = 16
_REACH = 3.0  # [m]
_POSE = 3
# Keep-out radii of Safety-Gym's PointGoal1 [m]: things are apart by the sum of theirs.
_ROBOT_GAP, _HAZARD_GAP, _GOAL_GAP = 0.4, 0.18, 0.305


@dataclass(frozen=True)
class PointHazard:
    """A unicycle in a square with discs; speed and turn rate are commanded.

    Reward: decrease of the distance to the goal [m], plus 1 on arrival within `goal_radius`; then
    the next goal counts. Cost: 1 while the centre of the robot is in a disc. No step terminates.

    What differs from PointGoal1: commands are velocities, not forces; a step lasts 0.05 s, not
    0.02 s; there is no vase; sensors are the velocities, the compass and the two pseudo-lidars.
    As there, nothing stops the robot at the edge of the square, in which everything is placed.

    World state: x, y, heading, centres of the discs (2 each), speed and turn rate of the last step
    as fractions (2), number of the goal (1), goals (8 x 2).
    """

    period: float = 0.05
    """Time between two actions [s]."""
    speed: float = 1.0
    """Speed at action 1 [m/s]."""
    turn_rate: float = 2.0
    """Turn rate at action 1 [rad/s]."""
    hazards: int = 8
    """Number of discs."""
    radius: float = 0.2
    """Of the discs [m]."""
    half_width: float = 1.5
    """Of the square [m]."""
    goal_radius: float = 0.3
    """Distance at which a goal is reached [m]."""
    clearance: float = 1e-3
    """How much larger the barrier's discs are [m]; more than float32 rounding, so that a guarded
    robot never costs."""
    horizon: int = 300
    """Steps per episode."""

    name = "PointHazard"
    cost_meaning = "robot inside a hazard of radius 0.2 m"
    source = "PointGoal1 of Safety-Gym (Ray, Achiam and Amodei, 2019), kinematic"

    def __post_init__(self) -> None:
        if self.hazards < 1:
            raise RangeError("hazards", value=self.hazards, expected="at least 1")
        if not (0.0 < self.radius + self.clearance < _ROBOT_GAP + _HAZARD_GAP):
            expected = f"positive, below {_ROBOT_GAP + _HAZARD_GAP:g} m, so that starts are outside"
            raise RangeError("radius", value=self.radius, expected=expected)

    @cached_property
    def spec(self) -> Spec:
        """Velocities, compass and two pseudo-lidars; speed and turn rate as fractions."""
        lidars = [
            Signal(f"{kind}_closeness_{index}", "1", 0.0, 1.0)
            for kind in ("goal", "hazard")
            for index in range(_BINS)
        ]
        observation = (
            Signal("speed", "m/s", -self.speed, self.speed),
            Signal("turn_rate", "rad/s", -self.turn_rate, self.turn_rate),
            Signal("heading_cos", "1", -1.0, 1.0),
            Signal("heading_sin", "1", -1.0, 1.0),
            *lidars,
        )
        action = (
            Signal("speed", unit_of(self.speed, "m/s"), -1.0, 1.0),
            Signal("turn_rate", unit_of(self.turn_rate, "rad/s"), -1.0, 1.0),
        )
        return Spec(observation, action, self.period)

    @cached_property
    def dynamics(self) -> Normalised:
        """Model state: x, y, heading, centres of the discs."""
        model = UnicycleAmongDiscs(Unicycle(self.period), self.hazards)
        return Normalised(model, (self.speed, self.turn_rate))

    @cached_property
    def barrier(self) -> ObservedDiscs:
        """Distance to each disc [m]. Standing still keeps it; it is convex along every step."""
        centres = [(_POSE + 2 * index, _POSE + 2 * index + 1) for index in range(self.hazards)]
        return ObservedDiscs(centres, self.radius + self.clearance, positions=(0, 1))

    @cached_property
    def fallback(self) -> Brake:
        """Stand still, which keeps the barrier's set."""
        return Brake(self.spec)

    def initial(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} size"]:
        """Place robot, hazards and goals as PointGoal1 does, with its keep-out radii."""
        draw = torch.rand(count, generator=generator, device=generator.device)
        heading = 2.0 * math.pi * draw
        none = heading.new_zeros(count, 0, 2)
        robot = place(none, none.new_zeros(0), self.half_width - _ROBOT_GAP, generator)
        placed = robot.unsqueeze(1)
        gaps = heading.new_tensor([_ROBOT_GAP] + [_HAZARD_GAP] * self.hazards) + _HAZARD_GAP
        for _ in range(self.hazards):
            here = gaps[: placed.shape[1]]
            disc = place(placed, here, self.half_width - _HAZARD_GAP, generator)
            placed = torch.cat([placed, disc.unsqueeze(1)], 1)
        discs = placed[:, 1:]
        goals = draw_goals(
            discs,
            robot,
            _GOALS,
            obstacle_gap=_GOAL_GAP + _HAZARD_GAP,
            step_gap=_GOAL_GAP + _ROBOT_GAP,
            half_width=self.half_width - _GOAL_GAP,
            generator=generator,
        )
        model = torch.cat([robot, heading.unsqueeze(-1), discs.flatten(1)], -1)
        return _join(_Parts(model, model.new_zeros(count, 2), model.new_zeros(count), goals))

    def step(
        self, state: Float[Tensor, "batch size"], action: Float[Tensor, "batch nu"]
    ) -> Outcome:
        """Move, then compare with the goal and the hazards."""
        model, _, index, goals = self._split(state)
        after = self.dynamics.predict(model, action).mean
        position, discs = after[:, :2], points_of(after[:, _POSE:])
        goal = current_goal(goals, index)
        left = distance(goal, position)
        arrived = (left <= self.goal_radius).to(state.dtype)
        reward = distance(goal, model[:, :2]) - left + arrived
        nearest = distance(discs, position.unsqueeze(1).expand_as(discs)).amin(-1)
        new = _join(_Parts(after, action, next_goal(index, arrived, _GOALS), goals))
        inside = nearest <= self.radius
        return Outcome(new, reward, inside.to(state.dtype), torch.zeros_like(inside))

    def observe(self, state: Float[Tensor, "batch size"]) -> Float[Tensor, "batch nx"]:
        """Return velocities, compass, goal lidar and hazard lidar."""
        model, last, index, goals = self._split(state)
        position, heading = model[:, :2].unsqueeze(1), model[:, 2]
        goal = current_goal(goals, index).unsqueeze(1)
        lidars = [
            pseudo_lidar(things - position, heading, bins=_BINS, reach=_REACH)
            for things in (goal, points_of(model[:, _POSE:]))
        ]
        velocities = last * last.new_tensor([self.speed, self.turn_rate])
        compass = torch.stack([heading.cos(), heading.sin()])
        # The batch stays contiguous in memory, as in the state.
        rows = [velocities.T, compass, *(lidar.T for lidar in lidars)]
        return torch.cat(rows).T

    def picture(
        self, state: Float[Tensor, " size"], trace: Float[Tensor, "points size"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the square from above; the dot is the robot's centre, which hazards are about."""
        model, _, index, goals = (part[0] for part in self._split(state.unsqueeze(0)))
        x, y, heading = model[:_POSE].tolist()
        discs = points_of(model[None, _POSE:])[0].tolist()
        edge = max(1.2 * self.half_width, abs(x) + 0.3, abs(y) + 0.3)
        board = canvas.Canvas(-edge, edge, -edge, edge)
        board.grid(0.5)
        side = self.half_width
        corners = [(-side, -side), (side, -side), (side, side), (-side, side)]
        board.line([*corners, corners[0]], canvas.INK, 1.0)
        goal_x, goal_y = goals[int(index)].tolist()
        board.disc((goal_x, goal_y), self.goal_radius, canvas.GOAL, canvas.GOAL_EDGE)
        inside = 0
        for centre_x, centre_y in discs:
            inside += math.hypot(centre_x - x, centre_y - y) <= self.radius
            board.disc((centre_x, centre_y), self.radius, canvas.HAZARD, canvas.HAZARD_EDGE)
        board.line([(px, py) for px, py in trace[:, :2].tolist()], canvas.TRACE, 3.0)
        tip = (x + 0.28 * math.cos(heading), y + 0.28 * math.sin(heading))
        board.arrow((x, y), tip, canvas.INK)
        board.disc((x, y), 0.08, canvas.HAZARD_EDGE if inside else canvas.ROBOT)
        board.disc((x, y), 0.02, canvas.PAPER)
        board.text(f"goal {math.hypot(goal_x - x, goal_y - y):.2f} m away")
        return board.picture()

    def _split(self, state: Tensor) -> "_Parts":
        end = _POSE + 2 * self.hazards
        goals = points_of(state[:, end + 3 :])
        return _Parts(state[:, :end], state[:, end : end + 2], state[:, end + 2], goals)


class _Parts(NamedTuple):
    model: Tensor
    last: Tensor
    goal: Tensor
    goals: Tensor


def _join(parts: _Parts) -> Tensor:
    """Put the parts beside each other, with the batch contiguous in memory: that is faster."""
    number = parts.goal.unsqueeze(-1)
    rows = [part.T for part in (parts.model, parts.last, number, parts.goals.flatten(1))]
    return torch.cat(rows).T

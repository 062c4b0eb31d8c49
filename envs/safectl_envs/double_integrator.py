"""A point mass on a table: reach goals near the edge without crossing it."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from safectl.barriers import StoppingDistance
from safectl.dynamics import LinearDynamics, double_integrator
from safectl.errors import RangeError
from safectl.safeguards import Brake
from safectl.spec import Signal, Spec
from safectl_envs import canvas
from safectl_envs.placement import current_goal, draw_goals, next_goal, points_of
from safectl_envs.world import Outcome

_GOALS = 8  # per episode; 200 steps of 0.05 s allow about five arrivals
_EDGE = 2.0  # where the episode ends, in multiples of the limit
_STATE = 4  # positions and velocities: the model state


@dataclass(frozen=True)
class DoubleIntegrator:
    """p'' = u on two axes, |p_i| <= limit, |u_i| <= 1 m/s^2; the step is exact for a held action.

    Reward: decrease of the distance to the goal [m], plus 1 on arrival; then the next goal counts.
    Cost: 1 while an axis is beyond its limit. The episode ends at twice the limit.

    World state: positions (2), velocities (2), number of the goal (1), goals (8 x 2).
    """

    period: float = 0.05
    """Time between two actions [s]."""
    limit: float = 1.0
    """Largest |p_i| without cost [m]."""
    goal_radius: float = 0.1
    """Distance at which a goal is reached [m]."""
    clearance: float = 1e-3
    """How much earlier the barrier stops [m]; more than float32 rounding, so that a guarded mass
    never costs."""
    horizon: int = 200
    """Steps per episode."""

    name = "DoubleIntegrator"
    cost_meaning = "a position beyond its limit of 1 m"
    source = "textbook; safectl"

    def __post_init__(self) -> None:
        if not self.limit > 0.0:
            raise RangeError("limit", value=self.limit, expected="a positive length")

    @cached_property
    def spec(self) -> Spec:
        """Positions, velocities and the way to the goal; accelerations."""
        far = 1.25 * _EDGE * self.limit
        observation = [Signal(f"position_{axis}", "m", -far, far) for axis in "xy"]
        fast = 2.0 * far**0.5 + 1.0
        observation += [Signal(f"velocity_{axis}", "m/s", -fast, fast) for axis in "xy"]
        away = far + self.limit
        observation += [Signal(f"goal_offset_{axis}", "m", -away, away) for axis in "xy"]
        action = tuple(Signal(f"acceleration_{axis}", "m/s^2", -1.0, 1.0) for axis in "xy")
        return Spec(tuple(observation), action, self.period)

    @cached_property
    def dynamics(self) -> LinearDynamics:
        """State (positions [m], velocities [m/s]), action [m/s^2]."""
        return double_integrator(self.period, axes=2)

    @cached_property
    def barrier(self) -> StoppingDistance:
        """Room to brake at 1 m/s^2 before each limit, four constraints [m]."""
        bound = self.limit - self.clearance
        return StoppingDistance(
            (-bound, -bound),
            (bound, bound),
            braking=1.0,
            period=self.period,
            positions=(0, 1),
            velocities=(2, 3),
        )

    @cached_property
    def fallback(self) -> Brake:
        """Stop within one period or brake fully, which keeps the barrier's set."""
        return Brake(self.spec, velocities=(2, 3))

    def initial(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} size"]:
        """Draw positions within 0.8 limit and speeds below 0.3 m/s per axis."""
        draw = torch.rand(count, _STATE, generator=generator, device=generator.device)
        span = draw.new_tensor([0.8 * self.limit] * 2 + [0.3 * self.limit**0.5] * 2)
        motion = (2.0 * draw - 1.0) * span
        goals = draw_goals(
            motion.new_zeros(count, 0, 2),
            motion[:, :2],
            _GOALS,
            obstacle_gap=0.0,
            step_gap=0.5 * self.limit,
            half_width=0.95 * self.limit,
            generator=generator,
        )
        return _join(_Parts(motion, motion.new_zeros(count), goals))

    def step(
        self, state: Float[Tensor, "batch size"], action: Float[Tensor, "batch nu"]
    ) -> Outcome:
        """Move, then compare with the goal and the limits."""
        motion, index, goals = _split(state)
        after = self.dynamics.predict(motion, action).mean
        goal = current_goal(goals, index)
        distance = (goal - after[:, :2]).norm(dim=-1)
        arrived = (distance <= self.goal_radius).to(state.dtype)
        reward = (goal - motion[:, :2]).norm(dim=-1) - distance + arrived
        reach = after[:, :2].abs().amax(-1)
        new = _join(_Parts(after, next_goal(index, arrived, _GOALS), goals))
        cost = (reach > self.limit).to(state.dtype)
        return Outcome(new, reward, cost, reach > _EDGE * self.limit)

    def observe(self, state: Float[Tensor, "batch size"]) -> Float[Tensor, "batch nx"]:
        """Return positions, velocities and the goal as seen from the mass."""
        motion, index, goals = _split(state)
        return torch.cat([motion, current_goal(goals, index) - motion[:, :2]], -1)

    def picture(
        self, state: Float[Tensor, " size"], trace: Float[Tensor, "points size"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the table from above; the arrow is the velocity after 0.5 s."""
        motion, index, goals = (part[0] for part in _split(state.unsqueeze(0)))
        x, y, dx, dy = motion.tolist()
        limit = self.limit
        edge = max(1.3 * limit, abs(x) + 0.2 * limit, abs(y) + 0.2 * limit)
        board = canvas.Canvas(-edge, edge, -edge, edge)
        board.rectangle(-edge, edge, -edge, edge, canvas.HAZARD)
        board.rectangle(-limit, limit, -limit, limit, canvas.PAPER)
        board.grid(0.5 * limit)
        corners = [(-limit, -limit), (limit, -limit), (limit, limit), (-limit, limit)]
        board.line([*corners, corners[0]], canvas.HAZARD_EDGE, 2.0)
        goal_x, goal_y = goals[int(index)].tolist()
        board.disc((goal_x, goal_y), self.goal_radius, canvas.GOAL, canvas.GOAL_EDGE)
        board.line([(px, py) for px, py in trace[:, :2].tolist()], canvas.TRACE, 3.0)
        board.arrow((x, y), (x + 0.5 * dx, y + 0.5 * dy), canvas.INK)
        board.disc((x, y), 0.05 * limit, canvas.ROBOT)
        board.text(f"speed {(dx * dx + dy * dy) ** 0.5:.2f} m/s")
        return board.picture()


class _Parts(NamedTuple):
    motion: Tensor
    goal: Tensor
    goals: Tensor


def _split(state: Tensor) -> _Parts:
    goals = points_of(state[:, _STATE + 1 :])
    return _Parts(state[:, :_STATE], state[:, _STATE], goals)


def _join(parts: _Parts) -> Tensor:
    return torch.cat([parts.motion, parts.goal.unsqueeze(-1), parts.goals.flatten(1)], -1)

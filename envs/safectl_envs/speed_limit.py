"""A point mass with drag in a lane: the faster the better, until the speed limit."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from safectl.barriers import HalfSpaces, Stack, StoppingDistance
from safectl.dynamics import LinearDynamics
from safectl.errors import RangeError
from safectl.safeguards import Brake
from safectl.spec import Signal, Spec
from safectl_envs import canvas
from safectl_envs.world import Outcome

_SIDES = 16  # of the polygon inside the circle of allowed velocities: 1.9 % of the limit at most
_VIEW = 4.0  # half of the length of the lane in a picture [m]


@dataclass(frozen=True)
class SpeedLimit:
    """y' = v, v' = u - drag v in the plane, |u_i| <= 1 m/s^2; exact for a held action.

    Reward: forward speed v_x [m/s], as the progress of Ant-Run towards a far point.
    Cost: 1 while the planar speed exceeds the limit or |y| exceeds the half width of the lane.

    World state: y, v_x, v_y (the model state and the observation), x (for pictures only).
    """

    period: float = 0.05
    """Time between two actions [s]."""
    drag: float = 0.25
    """Deceleration per speed [1/s]; the terminal speed is 1 / drag."""
    speed: float = 1.5
    """Speed limit [m/s]."""
    half_width: float = 2.0
    """Of the lane [m]."""
    clearance: float = 1e-3
    """How much earlier the barrier stops [m or m/s]; more than float32 rounding."""
    horizon: int = 200
    """Steps per episode."""

    name = "SpeedLimit"
    cost_meaning = "planar speed above 1.5 m/s, or more than 2 m beside the middle of the lane"
    source = "Ant-Run of Bullet-Safety-Gym, without legs; safectl"

    def __post_init__(self) -> None:
        if not (self.drag > 0.0 and self.speed > 0.0 and self.half_width > 0.0):
            value = (self.drag, self.speed, self.half_width)
            raise RangeError("drag, speed, half_width", value=value, expected="positive numbers")

    @cached_property
    def spec(self) -> Spec:
        """Lateral position and velocity; accelerations."""
        fast = 1.1 / self.drag
        wide = fast * self.period * self.horizon + self.half_width
        observation = (
            Signal("position_y", "m", -wide, wide),
            Signal("velocity_x", "m/s", -fast, fast),
            Signal("velocity_y", "m/s", -fast, fast),
        )
        action = tuple(Signal(f"acceleration_{axis}", "m/s^2", -1.0, 1.0) for axis in "xy")
        return Spec(observation, action, self.period)

    @cached_property
    def dynamics(self) -> LinearDynamics:
        """State (y [m], v_x [m/s], v_y [m/s]), action [m/s^2]; x matters to nothing."""
        A = torch.tensor([[0.0, 0.0, 1.0], [0.0, -self.drag, 0.0], [0.0, 0.0, -self.drag]])
        B = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        return LinearDynamics(A.double(), B.double(), self.period)

    @cached_property
    def barrier(self) -> Stack:
        """Room to brake before the sides of the lane (2) [m], and a polygon of speeds (16) [m/s].

        Drag only helps: braking without it already suffices. The polygon lies inside the circle.
        """
        bound = self.half_width - self.clearance
        lane = StoppingDistance(
            (-bound,), (bound,), braking=1.0, period=self.period, positions=(0,), velocities=(2,)
        )
        angle = torch.arange(_SIDES, dtype=torch.float64) * (2.0 * math.pi / _SIDES)
        normals = torch.stack([-angle.cos(), -angle.sin()], -1)
        reach = (self.speed - self.clearance) * math.cos(math.pi / _SIDES)
        offsets = torch.full((_SIDES,), -reach, dtype=torch.float64)
        return Stack(lane, HalfSpaces(normals, offsets, positions=(1, 2)))

    @cached_property
    def fallback(self) -> Brake:
        """Stop within one period or brake fully, which keeps the barrier's set."""
        return Brake(self.spec, velocities=(1, 2))

    def initial(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 4"]:
        """Draw y within half the lane and speeds below 0.2 of the limit per axis."""
        draw = torch.rand(count, 3, generator=generator, device=generator.device)
        span = draw.new_tensor([0.5 * self.half_width, 0.2 * self.speed, 0.2 * self.speed])
        return torch.nn.functional.pad((2.0 * draw - 1.0) * span, (0, 1))

    def step(self, state: Float[Tensor, "batch 4"], action: Float[Tensor, "batch nu"]) -> Outcome:
        """Move, then measure the speed and the lane."""
        before = state[:, :3]
        after = self.dynamics.predict(before, action).mean
        # x moves as y does; the model has the row for y only.
        sideways = torch.stack([state[:, 3], before[:, 2], before[:, 1]], -1)
        x = self.dynamics.predict(sideways, action.flip(-1)).mean[:, :1]
        speed = after[:, 1:].norm(dim=-1)
        broken = (speed > self.speed) | (after[:, 0].abs() > self.half_width)
        new = torch.cat([after, x], -1)
        return Outcome(new, after[:, 1].clone(), broken.to(state.dtype), torch.zeros_like(broken))

    def observe(self, state: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch nx"]:
        """Return y, v_x and v_y."""
        return state[:, :3].clone()

    def picture(
        self, state: Float[Tensor, " size"], trace: Float[Tensor, "points size"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the lane around the mass; the arrow is the velocity, red above the limit."""
        y, vx, vy, x = state.tolist()
        zoom = max(1.0, (abs(y) + 0.5) / (1.3 * self.half_width))
        wide, left, right = 1.3 * zoom * self.half_width, x - zoom * _VIEW, x + zoom * _VIEW
        board = canvas.Canvas(left, right, -wide, wide)
        board.rectangle(left, right, -wide, wide, canvas.HAZARD)
        board.rectangle(left, right, -self.half_width, self.half_width, canvas.PAPER)
        board.grid(1.0)
        for side in (-self.half_width, self.half_width):
            board.line([(left, side), (right, side)], canvas.HAZARD_EDGE, 2.0)
        points = trace[:, [3, 0]].tolist()
        board.line([(px, py) for px, py in points if px > left], canvas.TRACE, 3.0)
        speed = math.hypot(vx, vy)
        colour = canvas.HAZARD_EDGE if speed > self.speed else canvas.INK
        board.arrow((x, y), (x + vx, y + vy), colour)
        board.disc((x, y), 0.12, canvas.ROBOT)
        board.text(f"speed {speed:.2f} m/s, limit {self.speed:g} m/s   x {x:.1f} m")
        return board.picture()

"""A planar arm reaches for targets while a disc slides to and fro through its workspace."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from safectl.dynamics import LinearDynamics
from safectl.errors import RangeError
from safectl.safeguards import Brake
from safectl.spec import Signal, Spec
from safectl_envs import canvas
from safectl_envs.normalised import unit_of
from safectl_envs.placement import current_goal, distance, next_goal
from safectl_envs.segments import point_distance, segment_distance
from safectl_envs.world import Outcome

_JOINTS = 3
_TARGETS = 8  # per episode, then they repeat
_STARTS = 32  # candidates per episode; the last one always is free
_NEAR, _FAR, _SIDE = 0.35, 0.95, math.radians(15.0)  # targets: radii as shares of the reach, angles


@dataclass(frozen=True)
class ClearOfSweep:
    """Distance of every link to the strip that the disc will ever cover [m], one per link.

    State: joint angles (3) [rad]. Standing still keeps the set, wherever the disc is.
    """

    lengths: tuple[float, ...]
    """Of the links [m]."""
    height: float
    """y of the disc's way [m]."""
    half_way: float
    """The disc's centre moves between plus and minus this x [m]."""
    margin: float
    """Distance between the axes at which the value is zero [m]."""

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return the clearances, shape (batch, 3)."""
        points = joint_points(state, self.lengths)
        left, right = state.new_tensor(
            [[-self.half_way, self.height], [self.half_way, self.height]]
        )
        return segment_distance(points[:, :-1], points[:, 1:], left, right) - self.margin


@dataclass(frozen=True)
class PlanarReach:
    """Three revolute joints, whose velocities are commanded; the base is at the origin.

    Reward: decrease of the distance between tip and target [m], plus 1 on arrival within
    `target_radius`; then the next target counts. Cost: 1 while the clearance between a link and the
    disc is below `gap`. No step terminates.

    The barrier keeps out of everything that the disc will ever cover: only that set can be kept for
    ever, as the disc does not wait. A guard with it never reaches the targets behind the disc's
    way; a safeguard that learned when the way is free may.

    World state: joint angles (3, the model state), x of the disc, its direction (1 or -1), number
    of the target, targets (8 x 2).
    """

    period: float = 0.05
    """Time between two actions [s]."""
    lengths: tuple[float, float, float] = (0.4, 0.35, 0.25)
    """Of the links [m]."""
    rate: float = 1.0
    """Joint velocity at action 1 [rad/s]."""
    link_radius: float = 0.04
    """Of the links [m]."""
    disc_radius: float = 0.1
    """[m]."""
    disc_speed: float = 0.3
    """[m/s]."""
    height: float = 0.55
    """y of the disc's way [m]."""
    half_way: float = 0.5
    """The disc's centre turns round at plus and minus this x [m]."""
    gap: float = 0.02
    """Clearance that must remain [m]."""
    target_radius: float = 0.05
    """Distance at which a target is reached [m]."""
    clearance: float = 1e-3
    """How much earlier the barrier stops [m]; more than float32 rounding."""
    horizon: int = 200
    """Steps per episode."""

    name = "PlanarReach"
    cost_meaning = "clearance between a link and the sliding disc below 0.02 m"
    source = "safectl"

    def __post_init__(self) -> None:
        numbers = (*self.lengths, self.rate, self.link_radius, self.disc_radius, self.gap)
        if not min(numbers) > 0.0:
            raise RangeError(
                "lengths, rate, radii, gap", value=numbers, expected="positive numbers"
            )
        if not self._margin < self.height:
            expected = f"above {self._margin:g} m, so that the base is free"
            raise RangeError("height", value=self.height, expected=expected)

    @cached_property
    def spec(self) -> Spec:
        """Joint angles as cosines and sines, offsets and the disc's velocity; joint velocities."""
        circle = [
            Signal(f"joint_{joint}_{part}", "1", -1.0, 1.0)
            for part in ("cos", "sin")
            for joint in range(1, _JOINTS + 1)
        ]
        wide = 2.0 * sum(self.lengths) + self.half_way
        offsets = [
            Signal(f"{name}_{axis}", "m", -wide, wide)
            for name in ("tip_to_target", "disc_to_tip")
            for axis in "xy"
        ]
        fast = 1.1 * self.disc_speed
        observation = (*circle, *offsets, Signal("disc_velocity", "m/s", -fast, fast))
        unit = unit_of(self.rate, "rad/s")
        action = tuple(
            Signal(f"joint_{joint}_rate", unit, -1.0, 1.0) for joint in range(1, _JOINTS + 1)
        )
        return Spec(observation, action, self.period)

    @cached_property
    def dynamics(self) -> LinearDynamics:
        """State: joint angles [rad]; exact for a held velocity."""
        still = torch.zeros(_JOINTS, _JOINTS, dtype=torch.float64)
        gain = self.rate * torch.eye(_JOINTS, dtype=torch.float64)
        return LinearDynamics(still, gain, self.period)

    @cached_property
    def barrier(self) -> ClearOfSweep:
        """Distance of each link to the strip that the disc will ever cover (3) [m]."""
        margin = self._margin + self.clearance
        return ClearOfSweep(self.lengths, self.height, self.half_way, margin)

    @cached_property
    def fallback(self) -> Brake:
        """Stand still, which keeps the barrier's set."""
        return Brake(self.spec)

    def initial(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} size"]:
        """Draw angles inside the barrier's set, the disc on its way, and targets above the base."""
        device = generator.device
        span = torch.tensor([math.pi, 0.5 * math.pi, 0.5 * math.pi], device=device)
        draw = torch.rand(count, _STARTS, _JOINTS, generator=generator, device=device)
        angles = (2.0 * draw - 1.0) * span
        angles[:, -1] = torch.tensor([-0.5 * math.pi, 0.0, 0.0], device=device)  # hanging
        value = self.barrier.value(angles.flatten(0, 1)).amin(-1).reshape(count, _STARTS)
        first = (value > 0.0).int().argmax(1)
        angles = angles[torch.arange(count, device=device), first]
        disc = torch.rand(count, 2, generator=generator, device=device)
        x = (2.0 * disc[:, 0] - 1.0) * self.half_way
        direction = torch.where(disc[:, 1] < 0.5, -1.0, 1.0)
        polar = torch.rand(count, _TARGETS, 2, generator=generator, device=device)
        radius = sum(self.lengths) * (_NEAR + (_FAR - _NEAR) * polar[..., 0])
        angle = _SIDE + (math.pi - 2.0 * _SIDE) * polar[..., 1]
        targets = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
        return _join(_Parts(angles, x, direction, torch.zeros_like(x), targets))

    def step(
        self, state: Float[Tensor, "batch size"], action: Float[Tensor, "batch nu"]
    ) -> Outcome:
        """Move arm and disc, then compare with the target and the disc."""
        old = _split(state)
        angles = self.dynamics.predict(old.angles, action).mean
        x = old.x + self.period * self.disc_speed * old.direction
        beyond = x.abs() > self.half_way
        # At an end the disc turns round, and what it moved too far it moves back.
        x = torch.where(beyond, 2.0 * self.half_way * x.sign() - x, x)
        direction = torch.where(beyond, -x.sign(), old.direction)
        target = current_goal(old.targets, old.number)
        left = distance(target, self._tip(angles))
        arrived = (left <= self.target_radius).to(state.dtype)
        reward = distance(target, self._tip(old.angles)) - left + arrived
        number = next_goal(old.number, arrived, _TARGETS)
        new = _Parts(angles, x, direction, number, old.targets)
        broken = self.disc_clearance(_join(new)) < self.gap
        return Outcome(_join(new), reward, broken.to(state.dtype), torch.zeros_like(broken))

    def observe(self, state: Float[Tensor, "batch size"]) -> Float[Tensor, "batch nx"]:
        """Return angles on the circle, tip to target, disc to tip and the disc's velocity."""
        parts = _split(state)
        tip = self._tip(parts.angles)
        to_target = current_goal(parts.targets, parts.number) - tip
        from_disc = tip - self._disc(parts.x)
        velocity = self.disc_speed * parts.direction.unsqueeze(-1)
        circle = [parts.angles.cos(), parts.angles.sin()]
        return torch.cat([*circle, to_target, from_disc, velocity], -1)

    def disc_clearance(self, state: Float[Tensor, "batch size"]) -> Float[Tensor, " batch"]:
        """Return the smallest distance between a link's surface and the disc's [m]."""
        parts = _split(state)
        points = joint_points(parts.angles, self.lengths)
        gaps = point_distance(self._disc(parts.x).unsqueeze(1), points[:, :-1], points[:, 1:])
        return gaps.amin(-1) - self.link_radius - self.disc_radius

    def picture(
        self, state: Float[Tensor, " size"], trace: Float[Tensor, "points size"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Draw arm, disc and its way, target, and the path of the tip."""
        parts = _split(state.unsqueeze(0))
        reach = 1.15 * sum(self.lengths)
        board = canvas.Canvas(-reach, reach, -reach, reach)
        board.grid(0.25)
        way = [(-self.half_way, self.height), (self.half_way, self.height)]
        board.line(way, canvas.HAZARD, 2.0)
        target = current_goal(parts.targets, parts.number)[0].tolist()
        board.disc(tuple(target), self.target_radius, canvas.GOAL, canvas.GOAL_EDGE)
        disc = (float(parts.x), self.height)
        board.disc(disc, self.disc_radius, canvas.HAZARD, canvas.HAZARD_EDGE)
        tips = self._tip(_split(trace).angles).tolist()
        board.line([(x, y) for x, y in tips], canvas.TRACE, 3.0)
        points = [(x, y) for x, y in joint_points(parts.angles, self.lengths)[0].tolist()]
        thick = 2.0 * self.link_radius * 480 / (2.0 * reach)
        board.line(points, canvas.ROBOT, thick)
        for point in points:
            board.disc(point, self.link_radius, canvas.ROBOT)
        board.text(f"clearance {float(self.disc_clearance(state.unsqueeze(0))):.3f} m")
        return board.picture()

    @property
    def _margin(self) -> float:
        return self.link_radius + self.disc_radius + self.gap

    def _tip(self, angles: Tensor) -> Float[Tensor, "batch 2"]:
        return joint_points(angles, self.lengths)[:, -1]

    def _disc(self, x: Tensor) -> Float[Tensor, "batch 2"]:
        return torch.stack([x, torch.full_like(x, self.height)], -1)


def joint_points(
    angles: Float[Tensor, "batch joints"], lengths: tuple[float, ...]
) -> Float[Tensor, "batch points 2"]:
    """Return base, joints and tip, shape (batch, joints + 1, 2) [m]; each angle from its link."""
    direction = angles.cumsum(-1)
    links = torch.stack([direction.cos(), direction.sin()], -1)
    ends = (links * angles.new_tensor(lengths).unsqueeze(-1)).cumsum(1)
    return torch.nn.functional.pad(ends, (0, 0, 1, 0))


class _Parts(NamedTuple):
    angles: Float[Tensor, "batch 3"]
    x: Float[Tensor, " batch"]
    direction: Float[Tensor, " batch"]
    number: Float[Tensor, " batch"]
    targets: Float[Tensor, "batch 8 2"]


def _split(state: Float[Tensor, "batch size"]) -> _Parts:
    x, direction, number = state[:, _JOINTS : _JOINTS + 3].unbind(-1)
    targets = state[:, _JOINTS + 3 :].reshape(-1, _TARGETS, 2)
    return _Parts(state[:, :_JOINTS], x, direction, number, targets)


def _join(parts: _Parts) -> Float[Tensor, "batch size"]:
    moving = torch.stack([parts.x, parts.direction, parts.number], -1)
    return torch.cat([parts.angles, moving, parts.targets.flatten(1)], -1)

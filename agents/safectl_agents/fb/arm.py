"""The planar arm of `safectl_envs` as a domain: hold the tip at one of four places.

The arm does not see the targets of its environment, and the disc that slides through its workspace
is part of what it sees. Full reward within 0.05 m, a Gaussian fall to 0.1 at 0.35 m.
"""

import math
from collections.abc import Callable

from dm_control.utils import rewards
from torch import Tensor

from safectl_agents.fb.simulators import WorldSimulator, visible
from safectl_envs.planar_reach import PlanarReach, joint_points

WORLD = PlanarReach()
_HIDDEN = ("tip_to_target_x", "tip_to_target_y")
ARM_SPEC = visible(WORLD.spec, _HIDDEN)
"""Joint angles on the circle, disc to tip and its velocity; joint rates."""

_JOINTS = len(WORLD.lengths)
_NEAR_M, _MARGIN_M = 0.05, 0.3

PLACES = {
    "reach_left": (0.7, 150.0),
    "reach_right": (0.7, 30.0),
    "reach_near": (0.4, 90.0),
    "reach_far": (0.85, 90.0),
}
"""Radius [m] and angle [degrees] of each place; the last one is behind the disc's way."""


def make_arm(seed: int) -> WorldSimulator:
    """Return the arm."""
    return WorldSimulator(WORLD, _HIDDEN, seed)


def place_reward(name: str) -> Callable[[Tensor], float]:
    """Return the reward for a tip near a place, a function of the world state (1, size)."""
    radius, angle = PLACES[name]
    x, y = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))

    def reward(state: Tensor) -> float:
        tip = joint_points(state[:, :_JOINTS], WORLD.lengths)[0, -1].tolist()
        away = math.hypot(tip[0] - x, tip[1] - y)
        return float(rewards.tolerance(away, bounds=(0.0, _NEAR_M), margin=_MARGIN_M))

    return reward

"""The point-mass maze of ExORL, rebuilt: four rooms, a velocity-limited point, four goals.

Arena |x|, |y| <= 0.30 m; a plus-shaped wall at the origin with arms of 0.18 m, 0.02 m half-thick,
leaves openings of 0.12 m at the ends of its arms. The point (radius 0.01 m, 0.3 kg) slides without
gravity, damped by 1 N s/m and driven by at most 0.1 N per axis: at most 0.1 m/s, time constant
0.3 s.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from dm_control import mujoco
from dm_control.rl import control
from dm_control.suite import base
from dm_control.utils import rewards
from numpy.typing import NDArray

GOALS = {
    "reach_top_left": (-0.15, 0.15),
    "reach_top_right": (0.15, 0.15),
    "reach_bottom_left": (-0.15, -0.15),
    "reach_bottom_right": (0.15, -0.15),
}
"""Centre of each goal [m]."""

ARM, HALF_THICKNESS, ARENA = 0.18, 0.02, 0.30
RADIUS, REACH = 0.01, 0.29
"""Of the point, and how far from the centre it gets along x and y [m]."""
START_LOW, START_HIGH = (-0.29, 0.15), (-0.15, 0.29)
"""Corners of the square in which episodes start [m]."""

_GOAL_RADIUS = 0.015
_LANE = 0.25
"""Distance of the middle of an opening from the centre, a little outwards [m]."""

_PERIOD_S, _TIME_LIMIT_S = 0.02, 20.0

_WALL = '<geom type="box" pos="{x} {y} 0.02" size="{sx} {sy} 0.02"/>'
_MODEL = """
<mujoco model="point_mass_maze">
  <option timestep="{period}" gravity="0 0 0"/>
  <worldbody>
    <light pos="0 0 1"/>
    <camera name="top" pos="0 0 0.85"/>
    <geom name="ground" type="plane" size="{arena} {arena} 0.1" rgba="0.85 0.87 0.9 1"/>
    {walls}
    <body name="point" pos="0 0 0.01">
      <joint name="x" type="slide" axis="1 0 0" range="-0.29 0.29" limited="true" damping="1"/>
      <joint name="y" type="slide" axis="0 1 0" range="-0.29 0.29" limited="true" damping="1"/>
      <geom name="point" type="sphere" size="0.01" mass="0.3" rgba="0 0.45 0.7 1"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="x" gear="0.1" ctrlrange="-1 1" ctrllimited="true"/>
    <motor joint="y" gear="0.1" ctrlrange="-1 1" ctrllimited="true"/>
  </actuator>
</mujoco>
"""


def make_maze(random: np.random.RandomState) -> control.Environment:
    """Return the maze; the task's own reward is zero, see `goal_reward`."""
    walls = [(0.0, 0.0, ARM, HALF_THICKNESS), (0.0, 0.0, HALF_THICKNESS, ARM)]
    for sign in (-1.0, 1.0):
        outer = sign * (ARENA + 0.01)
        walls += [(outer, 0.0, 0.01, ARENA), (0.0, outer, ARENA, 0.01)]
    lines = "\n    ".join(_WALL.format(x=x, y=y, sx=sx, sy=sy) for x, y, sx, sy in walls)
    model = _MODEL.format(period=_PERIOD_S, arena=ARENA, walls=lines)
    physics = mujoco.Physics.from_xml_string(model)
    return control.Environment(physics, _Explore(random), time_limit=_TIME_LIMIT_S)


def goal_reward(name: str) -> Callable[[mujoco.Physics], float]:
    """Return a reward: near the goal times little control, at most 1 per step.

    Full reward within 0.015 m, a Gaussian fall to 0.1 at 0.03 m; full throttle costs a fifth.
    """
    goal = np.array(GOALS[name])

    def reward(physics: mujoco.Physics) -> float:
        distance = float(np.linalg.norm(physics.data.qpos - goal))
        near = rewards.tolerance(distance, bounds=(0.0, _GOAL_RADIUS), margin=_GOAL_RADIUS)
        effort = rewards.tolerance(
            physics.control(), margin=1.0, value_at_margin=0.0, sigmoid="quadratic"
        )
        return float(near * (4.0 + effort.mean()) / 5.0)

    return reward


def way_point_action(observation: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Drive to a goal by the openings, knowing the map: the practical ceiling of a score.

    Args:
        observation: Position [m] and velocity [m/s] of one point, shape (4,).
        name: Task.
    """
    position, velocity = observation[:2], observation[2:]
    target = np.array(GOALS[name], np.float32)
    leaves = np.sign(position) != np.sign(target)
    if leaves.any():
        axis = int(leaves.argmax())  # left to right first, then top to bottom
        beyond = 0.05 * np.sign(target[axis])
        target[1 - axis] = _LANE * np.sign(position[1 - axis])
        target[axis] = beyond
    return np.clip(30.0 * (target - position) - 9.0 * velocity, -1.0, 1.0).astype(np.float32)


class _Explore(base.Task):  # type: ignore[misc]  # dm_control publishes no types
    """Start at rest in the upper left room; no reward."""

    def initialize_episode(self, physics: mujoco.Physics) -> None:
        x, y = self.random.uniform(START_LOW, START_HIGH)
        physics.data.qpos[:] = (x, y)
        physics.data.qvel[:] = 0.0
        super().initialize_episode(physics)

    def get_observation(self, physics: mujoco.Physics) -> "OrderedDict[str, Any]":
        return OrderedDict(position=physics.data.qpos.copy(), velocity=physics.data.qvel.copy())

    def get_reward(self, physics: mujoco.Physics) -> float:
        return 0.0

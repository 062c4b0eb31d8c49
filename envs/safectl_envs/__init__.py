"""Environments: simulated robots with a cost, alone and in batches.

Importing this package adds them to Gymnasium's registry; see `catalogue`.
"""

from safectl_envs.ant_run import AntRun
from safectl_envs.batched import BatchedEnv, BatchedStep
from safectl_envs.braking_room import ObstacleRoom, WallRoom
from safectl_envs.cartpole import CartPoleStab
from safectl_envs.catalogue import Entry, catalogue, register_worlds
from safectl_envs.check import EnvironmentProblem, check_env
from safectl_envs.double_integrator import DoubleIntegrator
from safectl_envs.env import SafeEnv
from safectl_envs.guard import Guard, VectorGuard, true_state
from safectl_envs.jaka_reach import JakaReach
from safectl_envs.maze_layout import MazeLayout
from safectl_envs.planar_reach import PlanarReach
from safectl_envs.point_hazard import PointHazard
from safectl_envs.point_mass import PointMass
from safectl_envs.point_maze import PointMaze, maze2d
from safectl_envs.safety_gymnasium import register_safety_gymnasium
from safectl_envs.speed_limit import SpeedLimit
from safectl_envs.vector import SafeVectorEnv
from safectl_envs.world import Outcome, World

__all__ = [
    "AntRun",
    "BatchedEnv",
    "BatchedStep",
    "CartPoleStab",
    "DoubleIntegrator",
    "Entry",
    "EnvironmentProblem",
    "Guard",
    "JakaReach",
    "MazeLayout",
    "ObstacleRoom",
    "Outcome",
    "PlanarReach",
    "PointHazard",
    "PointMass",
    "PointMaze",
    "SafeEnv",
    "SafeVectorEnv",
    "SpeedLimit",
    "VectorGuard",
    "WallRoom",
    "World",
    "catalogue",
    "check_env",
    "maze2d",
    "register_safety_gymnasium",
    "true_state",
]

register_worlds()
register_safety_gymnasium()

"""What there is: our worlds by name, and a table of every environment for people."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import gymnasium

from safectl.errors import UnknownNameError
from safectl_envs.ant_run import AntRun
from safectl_envs.cartpole import CartPoleStab
from safectl_envs.double_integrator import DoubleIntegrator
from safectl_envs.jaka_reach import JakaReach
from safectl_envs.maze_layout import LAYOUTS
from safectl_envs.planar_reach import PlanarReach
from safectl_envs.point_hazard import PointHazard
from safectl_envs.point_maze import maze2d
from safectl_envs.safety_tasks import SAFETY_TASKS
from safectl_envs.speed_limit import SpeedLimit
from safectl_envs.world import World

WORLDS: Mapping[str, Callable[[], World]] = {
    world.name: world
    for world in (DoubleIntegrator, PointHazard, SpeedLimit, CartPoleStab, PlanarReach)
} | {f"Maze2d{name.capitalize()}": partial(maze2d, name) for name in LAYOUTS}
"""What makes our worlds, by their name in the registry, `safectl/<name>-v0`."""

SIMULATED: Mapping[str, type[AntRun] | type[JakaReach]] = {
    robot.name: robot for robot in (AntRun, JakaReach)
}
"""Robots in a physics engine, under the same names; they are no `World`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue."""

    id: str
    """What `gymnasium.make` takes."""
    observation: int
    """Number of observations."""
    action: int
    """Number of actions."""
    steps: int
    """Steps per episode."""
    cost: str
    """When a step costs 1."""
    source: str
    """Where the task comes from."""


def find_world(name: str) -> World:
    """Build one of our worlds with its defaults.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in WORLDS:
        raise UnknownNameError("world", name, known=tuple(WORLDS))
    return WORLDS[name]()


def register_worlds() -> None:
    """Add `safectl/<name>-v0`, alone and as a vector environment, to Gymnasium's registry."""
    for name in WORLDS:
        gymnasium.register(
            f"safectl/{name}-v0",
            entry_point="safectl_envs.env:SafeEnv",
            vector_entry_point="safectl_envs.vector:SafeVectorEnv",
            kwargs={"world": name},
        )
    for name, robot in SIMULATED.items():
        gymnasium.register(f"safectl/{name}-v0", entry_point=f"{robot.__module__}:{robot.__name__}")


def catalogue() -> tuple[Entry, ...]:
    """List every environment that this package registers, without making one."""
    worlds = [(name, find_world(name)) for name in WORLDS]
    ours = [
        Entry(
            f"safectl/{name}-v0",
            spec.nx,
            spec.nu,
            world.horizon,
            world.cost_meaning,
            world.source,
        )
        for name, world, spec in (
            *((name, world, world.spec) for name, world in worlds),
            *((name, robot, robot.signals) for name, robot in SIMULATED.items()),
        )
    ]
    theirs = [
        Entry(
            name,
            task.observation,
            task.action,
            task.max_episode_steps,
            task.cost,
            "Safety-Gymnasium 1.0.0",
        )
        for name, task in SAFETY_TASKS.items()
    ]
    return (*ours, *theirs)

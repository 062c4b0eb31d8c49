"""Planners from TOML files. A kind is one line in `KINDS`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from safectl.planners.towards import JointLine, Pursuit
from safectl.spec import Spec
from safectl.types import Planner
from safectl_ros.adapters.interface import sizes_in_si
from safectl_ros.kinds import Kind, Source, late, named, read_kind
from safectl_ros.robot_file import columns


@runtime_checkable
class HasGoal(Protocol):
    """A planner whose goal can be set from outside."""

    def towards(self, goal: Sequence[float], /) -> Planner:
        """Return the same planner with another goal."""
        ...


@dataclass(frozen=True, slots=True)
class PursuitSettings:
    """Drive a unicycle to a goal, see `safectl.planners.Pursuit`."""

    goal: tuple[float, ...] = (0.0, 0.0)
    """First goal, x and y [m]."""
    pose: tuple[str, ...] = ("x", "y", "heading")
    """Observed signals that are the pose [m, m, rad]."""
    horizon: int = 40
    """Steps of a plan, >= 1."""
    radius: float = 0.1
    """Distance at which the goal is reached [m], > 0."""


@dataclass(frozen=True, slots=True)
class JointLineSettings:
    """Move joints on a straight line to a goal, see `safectl.planners.JointLine`."""

    goal: tuple[float, ...] = ()
    """First goal, one position per action."""
    positions: tuple[str, ...] = ()
    """Observed signal that is the position of each action; those of the same name by default."""
    speed: tuple[float, ...] = ()
    """Largest speed per action [unit of the position / s], > 0."""
    horizon: int = 50
    """Steps of a plan, >= 1."""


@dataclass(frozen=True, slots=True)
class DiffuserSettings:
    """Plans of a diffusion model through a maze, certified for a specification."""

    model: str = ""
    """Folder of `safectl train diffuser`, relative to this file; empty for the shipped one."""
    method: str = "best"
    """One of `diffuser`, `ros`, `res`, `tvs`, `best`, as `safectl plan` knows them."""
    specification: str = ""
    """What plans are certified for; empty for that of the maze."""
    goal: tuple[float, ...] = ()
    """First goal, row and column [m]; empty for that of the maze."""
    steps: int = 16
    """Of the sampler, >= 1."""
    seed: int = 0
    """Of the noise, >= 0."""


def load_planner(path: Path, spec: Spec) -> Planner:
    """Build a planner for a robot.

    Raises:
        ConfigError: If the file holds no planner for this robot, with the reason.
    """
    with named("planner", path):
        kind, settings = read_kind(path, KINDS, "planner")
        planner: Planner = kind.build(settings, Source(spec, path))
        return planner


def _pursuit(settings: PursuitSettings, source: Source) -> Planner:
    spec = source.spec
    return Pursuit(
        spec,
        goal=settings.goal,
        pose=columns(spec, settings.pose),
        scale=sizes_in_si(spec.action).tolist(),
        horizon=settings.horizon,
        radius=settings.radius,
    )


def _joint_line(settings: JointLineSettings, source: Source) -> Planner:
    spec = source.spec
    names = settings.positions or tuple(signal.name for signal in spec.action)
    return JointLine(
        spec,
        goal=settings.goal,
        positions=columns(spec, names),
        speed=settings.speed,
        horizon=settings.horizon,
    )


KINDS: Mapping[str, Kind] = {
    "pursuit": Kind(PursuitSettings(), _pursuit),
    "joint_line": Kind(JointLineSettings(), _joint_line),
    "diffuser": Kind(DiffuserSettings(), late("safectl_ros.diffuser:build")),
}
"""Planners by the word `kind` in their file."""

"""Safeguards from files: a TOML file that names a kind, or the folder of a training run.

A kind is one line in `KINDS`: the settings with their defaults, and what builds the safeguard.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from safectl.barriers import Discs, HalfSpaces, Stack, StoppingDistance
from safectl.dynamics import Unicycle, double_integrator
from safectl.errors import ConfigError, FileFormatError, RangeError, SafectlError
from safectl.export.compiled import CompiledFilter
from safectl.safeguards import (
    BarrierQP,
    Brake,
    Chain,
    Clip,
    RateLimit,
    Remembering,
    SafetyLayer,
)
from safectl.spec import Spec, require_same
from safectl.types import Barrier, Decision, Dynamics, Safeguard
from safectl_agents.guards import load_guard_name
from safectl_agents.models import make_env
from safectl_agents.run_folder import load_config, load_guard
from safectl_agents.speed_guard import SpeedGuard
from safectl_envs.normalised import Normalised
from safectl_envs.signals import spec_of
from safectl_ros.adapters.interface import sizes_in_si
from safectl_ros.kinds import Kind, read_kind
from safectl_ros.robot_file import Robot, columns
from safectl_ros.stated import Stated, state_guard


@dataclass(frozen=True, slots=True)
class Loaded:
    """A safeguard and what can be said about its constraints.

    Attributes:
        safeguard: For a batch of one.
        labels: Names of the margins.
        margins: The margins at an observation, shape (1, nx), and what was decided there.
        discs: Keep-out discs, x, y and radius [m], in the frame of the odometry.
        is_bounded: Whether `filter` takes a bounded number of operations, so that it may run where
            the command arrives; anything else runs in a thread of its own.
    """

    safeguard: Safeguard
    labels: tuple[str, ...] = ("margin",)
    margins: Callable[[Tensor, Decision], Tensor] = lambda _, decision: decision.certificate.margin
    discs: tuple[tuple[float, float, float], ...] = ()
    is_bounded: bool = True


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """Limits of the action: those of the robot."""


@dataclass(frozen=True, slots=True)
class RateLimitSettings:
    """Limits of the action and of its rate of change."""

    rate: tuple[float, ...] = ()
    """Largest rate of change per action [unit of the signal / s], > 0."""


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """Model, barrier and fallback of the robot's environment, which reports its model's state."""

    rate: float = 1.0
    """Share of the barrier that one period may use up, in (0, 1]."""
    escape: bool = True
    """Whether a robot in a keep-out zone may do whatever does not lead it deeper in."""


@dataclass(frozen=True, slots=True)
class BarrierSettings:
    """A barrier and a model by name."""

    model: Literal["unicycle", "double_integrator"] = "unicycle"
    """`unicycle`: x, y, heading; speeds are commanded. `double_integrator`: positions, then
    velocities; accelerations are commanded."""
    state: tuple[str, ...] = ("x", "y", "heading")
    """Observed signals that are the model's state, in its order."""
    rate: float = 0.5
    """Share of the barrier that one period may use up, in (0, 1]."""
    escape: bool = True
    """Whether a robot in a keep-out zone may do whatever does not lead it deeper in."""
    discs: tuple[tuple[float, float], ...] = ()
    """Centres of discs to keep out of [m]; for the unicycle."""
    radius: float = 0.3
    """Of the discs, the robot's own radius added [m]."""
    half_spaces: tuple[tuple[float, float, float], ...] = ()
    """(nx, ny, b) each: stay where nx x + ny y >= b [m]; for the unicycle."""
    low: tuple[float, ...] = ()
    """Lower limits of the positions [m]; for the double integrator."""
    high: tuple[float, ...] = ()
    """Upper limits of the positions [m]; for the double integrator."""


@dataclass(frozen=True, slots=True)
class ConvexSettings:
    """Constraints that are stated in CVXPY, see `safectl_ros.stated`."""

    constraints: tuple[Stated, ...] = ()
    """Norms of affine terms in action and observation."""


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """Several safeguards in order, all of which must agree."""

    files: tuple[str, ...] = ()
    """Other safeguards, as paths relative to this file."""


class Source(NamedTuple):
    """What a builder gets: the robot, its specification with the limits in force, and the file."""

    robot: Robot
    spec: Spec
    path: Path


def load_safeguard(path: Path, robot: Robot, spec: Spec) -> Loaded:
    """Build a safeguard from a TOML file or the folder of a run.

    Args:
        path: The file or folder.
        robot: The robot to guard.
        spec: Its specification, with limits of the action that may be tighter.

    Raises:
        ConfigError: If the path holds no safeguard for this robot, with the reason.
    """
    try:
        if path.is_dir():
            return _from_run(path, robot, spec)
        kind, settings = read_kind(path, KINDS, "safeguard")
        loaded: Loaded = kind.build(settings, Source(robot, spec, path))
        return loaded
    except ConfigError:
        raise
    except SafectlError as error:
        raise ConfigError(f"safeguard {path}", str(error)) from error


def compile_rows(loaded: Loaded, spec: Spec) -> tuple[Loaded, str]:
    """Let compiled code decide single rows where that is possible.

    It takes a second or two, for the compiler, and is not for a running control loop.

    Returns:
        The safeguard, and by what it decides: `compiled`, or `torch` and why.
    """
    try:
        return replace(loaded, safeguard=CompiledFilter(loaded.safeguard, spec)), "compiled"
    except SafectlError as error:
        return loaded, f"torch: {error}"


def _from_run(folder: Path, robot: Robot, spec: Spec) -> Loaded:
    """Build the safeguard that a run was trained with, as it was learned."""
    name, config = load_guard_name(folder), load_config(folder)
    source = Source(robot, spec, folder)
    if name == "none":
        raise FileFormatError(folder, "was trained without a guard", "name another safeguard")
    if name == "barrier":
        return _world(WorldSettings(), source)
    env = make_env(config.env)
    try:
        require_same(spec_of(env), robot.spec, left_name=str(folder), right_name="the robot")
        if name == "limits":
            return _clip(ClipSettings(), source)
        guard = SpeedGuard(env, seed=config.seed)
    finally:
        env.close()
    load_guard(folder, guard)
    layer = guard.require_layer()
    limited = SafetyLayer(
        layer.model,
        layer.calibration,
        spec=spec,
        limit=layer.limit,
        rate=layer.rate,
        signal=layer.signal,
    )
    return Loaded(limited, ("speed",))


def _clip(_: ClipSettings, source: Source) -> Loaded:
    signals = source.spec.action
    low, high = torch.tensor(source.spec.action_low), torch.tensor(source.spec.action_high)

    def room(_: Tensor, decision: Decision) -> Tensor:
        action = decision.action[0]
        return torch.minimum(action - low.to(action), high.to(action) - action)

    return Loaded(Clip(source.spec), tuple(f"limits of {signal.name}" for signal in signals), room)


def _rate_limit(settings: RateLimitSettings, source: Source) -> Loaded:
    limit = RateLimit(source.spec, settings.rate, rows=1)
    return Loaded(Remembering(limit, [limit]), ("rate",))


def _world(settings: WorldSettings, source: Source) -> Loaded:
    world = source.robot.world
    if world is None or world.dynamics.nx != source.spec.nx:
        expected = "a robot that is one of our environments and reports its model's state"
        raise RangeError("robot", value=source.spec.nx, expected=expected)
    brake = world.fallback
    guard = BarrierQP(
        world.barrier,
        world.dynamics,
        fallback=Brake(source.spec, fixed=brake.fixed.tolist(), law=brake.law),
        rate=settings.rate,
        escape=settings.escape,
    )
    return _with_margins(guard)


def _barrier(settings: BarrierSettings, source: Source) -> Loaded:
    spec = source.spec
    states = list(columns(spec, settings.state))
    build = _among_discs if settings.model == "unicycle" else _within_box
    model, barrier, fallback = build(settings, spec, states)
    guard = BarrierQP(
        barrier,
        model,
        fallback=fallback,
        rate=settings.rate,
        observe=lambda observation: observation[:, states],
        escape=settings.escape,
    )
    return _with_margins(guard, tuple((x, y, settings.radius) for x, y in settings.discs))


class _Parts(NamedTuple):
    model: Dynamics
    barrier: Barrier
    fallback: Brake


def _among_discs(settings: BarrierSettings, spec: Spec, _: list[int]) -> _Parts:
    parts: list[Barrier] = []
    if settings.discs:
        parts.append(Discs(torch.tensor(settings.discs), settings.radius))
    if settings.half_spaces:
        planes = torch.tensor(settings.half_spaces)
        parts.append(HalfSpaces(planes[:, :2], planes[:, 2]))
    if not parts:
        raise RangeError("discs and half_spaces", value=(), expected="at least one of them")
    model = Normalised(Unicycle(spec.period), sizes_in_si(spec.action).tolist())
    return _Parts(model, Stack(*parts), Brake(spec))


def _within_box(settings: BarrierSettings, spec: Spec, states: list[int]) -> _Parts:
    axes = len(settings.low)
    positions, velocities = tuple(range(axes)), tuple(range(axes, 2 * axes))
    sizes = sizes_in_si(spec.action)
    braking = np.minimum(-np.array(spec.action_low), np.array(spec.action_high)) * sizes
    barrier = StoppingDistance(
        settings.low,
        settings.high,
        braking=float(braking.min()),
        period=spec.period,
        positions=positions,
        velocities=velocities,
    )
    model = Normalised(double_integrator(spec.period, axes=axes), sizes.tolist())
    law = Brake(
        spec, law=lambda seen: -seen[:, states[axes:]] / (spec.period * seen.new_tensor(sizes))
    )
    return _Parts(model, barrier, law)


def _convex(settings: ConvexSettings, source: Source) -> Loaded:
    return Loaded(state_guard(settings.constraints, Brake(source.spec)), ("constraints",))


def _chain(settings: ChainSettings, source: Source) -> Loaded:
    parts = [
        load_safeguard(source.path.parent / name, source.robot, source.spec)
        for name in settings.files
    ]
    memories = [
        memory
        for part in parts
        if isinstance(part.safeguard, Remembering)
        for memory in part.safeguard.memories
    ]
    chain = Chain(*[_inner(part.safeguard) for part in parts], fallback=Brake(source.spec))
    labels = tuple(label for part in parts for label in part.labels)

    def margins(observation: Tensor, decision: Decision) -> Tensor:
        return torch.cat([part.margins(observation, decision) for part in parts])

    discs = tuple(disc for part in parts for disc in part.discs)
    guard = Remembering(chain, memories) if memories else chain
    return Loaded(guard, labels, margins, discs, all(part.is_bounded for part in parts))


def _inner(safeguard: Safeguard) -> Safeguard:
    """Return what is remembered by the whole chain, and so not by the part."""
    return safeguard.safeguard if isinstance(safeguard, Remembering) else safeguard


def _with_margins(guard: BarrierQP, discs: tuple[tuple[float, float, float], ...] = ()) -> Loaded:
    def margins(observation: Tensor, _: Decision | None) -> Tensor:
        state = observation if guard.observe is None else guard.observe(observation)
        return guard.barrier.value(state)[0]

    count = margins(torch.zeros(1, guard.fallback.spec.nx), None).shape[0]
    return Loaded(guard, tuple(f"barrier_{index}" for index in range(count)), margins, discs)


KINDS: Mapping[str, Kind] = {
    "clip": Kind(ClipSettings(), _clip),
    "rate_limit": Kind(RateLimitSettings(), _rate_limit),
    "world": Kind(WorldSettings(), _world),
    "barrier": Kind(BarrierSettings(), _barrier),
    "convex": Kind(ConvexSettings(), _convex),
    "chain": Kind(ChainSettings(), _chain),
}
"""Safeguards by the word `kind` in their file."""

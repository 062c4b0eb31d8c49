"""Safeguards with a barrier: that of a robot's environment, or one by name."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from safectl.barriers import Discs, HalfSpaces, Stack, StoppingDistance
from safectl.dynamics import Unicycle, double_integrator
from safectl.errors import RangeError
from safectl.safeguards import BarrierQP, Brake
from safectl.spec import Spec
from safectl.types import Barrier, Decision, Dynamics
from safectl_envs.normalised import Normalised
from safectl_ros.adapters.interface import sizes_in_si
from safectl_ros.loaded import Loaded, Source
from safectl_ros.robot_file import columns


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


def build_world(settings: WorldSettings, source: Source) -> Loaded:
    """Keep the barrier of the robot's environment.

    Raises:
        RangeError: If the robot does not report the state of such a model.
    """
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


def build_barrier(settings: BarrierSettings, source: Source) -> Loaded:
    """Keep a barrier by name.

    Raises:
        UnknownNameError: If a signal is not observed.
        RangeError: If the settings name no constraint, or a number is out of range.
    """
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


def _with_margins(guard: BarrierQP, discs: tuple[tuple[float, float, float], ...] = ()) -> Loaded:
    def margins(observation: Tensor, _: Decision | None) -> Tensor:
        state = observation if guard.observe is None else guard.observe(observation)
        return guard.barrier.value(state)[0]

    count = margins(torch.zeros(1, guard.fallback.spec.nx), None).shape[0]
    return Loaded(guard, tuple(f"barrier_{index}" for index in range(count)), margins, discs)

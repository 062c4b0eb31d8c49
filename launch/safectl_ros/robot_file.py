"""What a node needs to know about its robot: signals, messages, and how it comes to rest.

A robot is a TOML file, or the name of a Gymnasium environment.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from safectl.config import load_toml
from safectl.errors import ConfigError, RangeError, SafectlError, UnknownNameError
from safectl.safeguards import Brake, Fallback, StopProfile, decide_stop, slowed
from safectl.safeguards.stop import Command
from safectl.spec import Signal, Spec
from safectl_envs import SafeEnv
from safectl_envs.signals import UNKNOWN
from safectl_envs.world import World
from safectl_ros.adapters import Interface, make_interface
from safectl_ros.adapters.interface import sizes_in_si
from safectl_ros.robot import SimulatedRobot, make_env
from safectl_ros.stop_profiles import StopProfiles

_COMMAND_OF: Mapping[str, Command] = {
    "m/s^2": "acceleration",
    "rad/s^2": "acceleration",
    "m": "position",
    "rad": "position",
}
"""What an action in one of these units is; it does not rest at zero."""


@dataclass(frozen=True, slots=True)
class StopSettings:
    """How a robot comes to rest from its measured motion; without velocities, by zeros at once,
    which stops commands of velocity alone."""

    command: Command = "velocity"
    """What an action is: `velocity`, `acceleration` or `position`."""
    velocities: tuple[str, ...] = ()
    """Observed signal that is the velocity of each action."""
    positions: tuple[str, ...] = ()
    """Observed signal that is the position of each action; for positions only."""
    deceleration: tuple[float, ...] = ()
    """Largest deceleration of the comfort stop per action [unit of the velocity / s], > 0."""


@dataclass(frozen=True, slots=True)
class RobotSettings:
    """The file of a robot."""

    kind: str = "vector"
    """`base`, `arm` or `vector`: which messages it speaks."""
    is_stamped: bool = True
    """False for `Twist` (base) or `Float64MultiArray` (arm) commands."""
    env: str = ""
    """Environment that gives signals and period, in place of the following ones."""
    period: float = 0.05
    """Time between two commands that the safeguard reckons with [s], > 0."""
    observation: tuple[Signal, ...] = ()
    """What the robot reports, in the order that policies and safeguards want."""
    action: tuple[Signal, ...] = ()
    """What it is commanded, with its limits."""
    stop: StopSettings = field(default_factory=StopSettings)
    """How it comes to rest."""


@dataclass(frozen=True, slots=True)
class Robot:
    """A robot as the nodes see it.

    Attributes:
        interface: Its signals and messages.
        stops: How it comes to rest.
        rest: The same at once, as the fallback of its filters; see `rest_within`.
        world: The model behind it, where it is one of our environments.
        sees_state: Whether it reports the state of that model.
    """

    interface: Interface
    stops: StopProfiles
    rest: Brake
    world: World | None = None
    sees_state: bool = False

    @property
    def spec(self) -> Spec:
        """Signals of the robot."""
        return self.interface.spec

    @property
    def state_topic(self) -> str:
        """Where it reports."""
        return "model_state" if self.sees_state else self.interface.state_topic

    def rest_within(self, spec: Spec) -> Brake:
        """Return what a filter falls back to: zero velocity, the hardest braking, or the position
        where the robot is.

        Args:
            spec: Of this robot, with the limits in force.
        """
        return Brake(spec, fixed=self.rest.fixed.tolist(), law=self.rest.law)


def load_robot(source: str, *, sees_state: bool = False) -> Robot:
    """Read a robot.

    Args:
        source: A TOML file, or the name of an environment, which is a `vector` robot.
        sees_state: Whether it reports the true state of its model, as our environments do on the
            topic `model_state`, in place of its observation.

    Raises:
        ConfigError: If it is neither, or the file cannot be used.
    """
    is_file = source.endswith(".toml")
    settings = load_toml(RobotSettings(), Path(source)) if is_file else RobotSettings(env=source)
    try:
        return _build(settings, sees_state=sees_state)
    except SafectlError as error:
        raise ConfigError(f"robot {source!r}", str(error)) from error


def limited(spec: Spec, shares: Sequence[float]) -> Spec:
    """Tighten the limits of the action towards rest: zero, or the limit nearest to it.

    Args:
        spec: Signals of the robot.
        shares: Of every limit, in (0, 1]; one for all, or one per action.

    Raises:
        RangeError: If there is another number of shares, or one is out of range.
    """
    if len(shares) not in (1, spec.nu) or not all(0.0 < share <= 1.0 for share in shares):
        expected = f"1 or {spec.nu} numbers in (0, 1]"
        raise RangeError("limit_shares", value=tuple(shares), expected=expected)
    signals = []
    for signal, share in zip(spec.action, [*shares] * (spec.nu // len(shares)), strict=True):
        rest = min(max(0.0, signal.low), signal.high)
        low, high = (rest + share * (limit - rest) for limit in (signal.low, signal.high))
        signals.append(Signal(signal.name, signal.unit, low, high))
    return Spec(spec.observation, tuple(signals), spec.period)


def make_stops(spec: Spec, settings: StopSettings, world: World | None = None) -> StopProfiles:
    """Build how a robot comes to rest.

    Raises:
        UnknownNameError: If a signal is not observed.
        RangeError, ShapeError: As `StopProfile`.
    """
    if settings.velocities:
        comfort = _profile(spec, settings, settings.deceleration)
        is_velocity = settings.command == "velocity"
        hardest = _profile(spec, settings, (math.inf,) * spec.nu)
        return StopProfiles(
            partial(decide_stop, comfort),
            partial(decide_stop, hardest),
            comfort.needs_observation,
            comfort.is_closed_loop,
            partial(slowed, comfort) if is_velocity else None,
        )
    if settings.command != "velocity":
        expected = f"one observed signal per {settings.command}"
        raise RangeError("stop.velocities", value=(), expected=expected)
    fallback: Fallback = Brake(spec) if world is None else world.fallback
    stop = partial(decide_stop, fallback)
    return StopProfiles(stop, stop, is_closed_loop=True)


def make_rest(spec: Spec, settings: StopSettings) -> Brake:
    """Build the hardest stop as a law that is affine in the observation, so that it compiles.

    Raises:
        UnknownNameError: If a signal is not observed.
    """
    if settings.command == "velocity":
        return Brake(spec)
    sizes = torch.from_numpy(sizes_in_si(spec.action))
    names, factor = settings.velocities, -1.0 / spec.period
    if settings.command == "position":
        names, factor = settings.positions, 1.0
    seen = list(columns(spec, names))
    return Brake(spec, law=lambda row: factor * row[:, seen] / sizes.to(row))


def _build(settings: RobotSettings, *, sees_state: bool) -> Robot:
    if not settings.env:
        spec = Spec(settings.observation, settings.action, settings.period)
        _require_velocities(spec, settings.stop)
        interface = make_interface(settings.kind, spec, is_stamped=settings.is_stamped)
        return Robot(interface, make_stops(spec, settings.stop), make_rest(spec, settings.stop))
    env = make_env(settings.env)
    try:
        interface = SimulatedRobot(env, settings.kind, is_stamped=settings.is_stamped).interface
        inner = env.unwrapped
    finally:
        env.close()
    world = inner.world if isinstance(inner, SafeEnv) else None
    if not sees_state:
        stops = make_stops(interface.spec, settings.stop)
        return Robot(interface, stops, make_rest(interface.spec, settings.stop), world)
    if world is None or settings.kind != "vector":
        expected = "one of our worlds, of the kind vector, to report the state of its model"
        raise RangeError("env", value=(settings.env, settings.kind), expected=expected)
    names = [f"state_{index}" for index in range(world.dynamics.nx)]
    state = tuple(Signal(name, UNKNOWN, -math.inf, math.inf) for name in names)
    spec = Spec(state, interface.spec.action, interface.spec.period)
    stops = make_stops(spec, settings.stop, world)
    rest = make_rest(spec, settings.stop) if settings.stop.velocities else world.fallback
    return Robot(make_interface("vector", spec), stops, rest, world, sees_state)


def _require_velocities(spec: Spec, stop: StopSettings) -> None:
    """Refuse to stop by zeros what does not rest at zero, by the units of its actions.

    Raises:
        RangeError: If an action in m/s^2, rad/s^2, m or rad is said to be a velocity.
    """
    for signal in spec.action if stop.command == "velocity" else ():
        unit = signal.unit.rpartition(" ")[2]
        if unit in _COMMAND_OF:
            expected = f"{_COMMAND_OF[unit]!r}, as {signal.name} is in {signal.unit}"
            raise RangeError("stop.command", value=stop.command, expected=expected)


def _profile(spec: Spec, settings: StopSettings, deceleration: Sequence[float]) -> StopProfile:
    return StopProfile(
        spec,
        velocities=columns(spec, settings.velocities),
        positions=columns(spec, settings.positions),
        deceleration=deceleration,
        command=settings.command,
        scale=sizes_in_si(spec.action).tolist(),
    )


def columns(spec: Spec, names: Sequence[str]) -> tuple[int, ...]:
    """Return where some signals are in the observation.

    Raises:
        UnknownNameError: If one is not observed.
    """
    known = [signal.name for signal in spec.observation]
    for name in names:
        if name not in known:
            raise UnknownNameError("observed signal", name, known=known)
    return tuple(known.index(name) for name in names)

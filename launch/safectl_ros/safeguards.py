"""Safeguards from files: a TOML file that names a kind, or the folder of a training.

A kind is one line in `KINDS`: the settings with their defaults, and what builds the safeguard.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from safectl.errors import ConfigError, FileFormatError, SafectlError
from safectl.export.compiled import CompiledFilter
from safectl.safeguards import Chain, Clip, RateLimit, Remembering
from safectl.spec import Spec, require_same
from safectl.types import Decision, Safeguard
from safectl_agents.fb import VISITS
from safectl_agents.guards import load_guard_name
from safectl_agents.models import make_env
from safectl_agents.run_folder import load_config
from safectl_envs.signals import spec_of
from safectl_ros.barrier_safeguards import (
    BarrierSettings,
    WorldSettings,
    build_barrier,
    build_world,
)
from safectl_ros.kinds import Kind, late, named, read_kind
from safectl_ros.learned_settings import ACSSettings, VisitLimitSettings
from safectl_ros.loaded import Loaded, Source
from safectl_ros.robot_file import Robot
from safectl_ros.stated import Stated, state_guard

_build_acs = late("safectl_ros.learned_safeguards:build_acs")
_build_seed = late("safectl_ros.learned_safeguards:build_seed")
_build_speed = late("safectl_ros.learned_safeguards:build_speed")
_build_visit_limit = late("safectl_ros.learned_safeguards:build_visit_limit")


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """Limits of the action: those of the robot."""


@dataclass(frozen=True, slots=True)
class RateLimitSettings:
    """Limits of the action and of its rate of change."""

    rate: tuple[float, ...] = ()
    """Largest rate of change per action [unit of the signal / s], > 0."""


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


def load_safeguard(
    path: Path, robot: Robot, spec: Spec, *, within: tuple[Path, ...] = ()
) -> Loaded:
    """Build a safeguard from a TOML file or the folder of a training.

    Args:
        path: The file or folder.
        robot: The robot to guard.
        spec: Its specification, with limits of the action that may be tighter.
        within: Chains that have led to it.

    Raises:
        ConfigError: If the path holds no safeguard for this robot, with the reason.
    """
    place = path.resolve()
    if place in within:
        names = " -> ".join(str(chain) for chain in (*within, place))
        raise ConfigError(f"safeguard {path}", f"is a chain that contains itself: {names}")
    with named("safeguard", path):
        if path.is_dir():
            return _from_folder(Source(robot, spec, path))
        kind, settings = read_kind(path, KINDS, "safeguard")
        loaded: Loaded = kind.build(settings, Source(robot, spec, path, (*within, place)))
        return loaded


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


def _from_folder(source: Source) -> Loaded:
    """Build the safeguard that a folder was trained with, as it was learned."""
    folder = source.path
    if (folder / VISITS).exists():
        source = source._replace(path=folder / VISITS)
        visits: Loaded = _build_visit_limit(VisitLimitSettings(run="."), source)
        return visits
    if (folder / "settings.json").exists():
        seed: Loaded = _build_seed(source)
        return seed
    name = load_guard_name(folder)
    if name == "none":
        raise FileFormatError(folder, "was trained without a guard", "name another safeguard")
    if name == "barrier":
        return build_world(WorldSettings(), source)
    env = make_env(load_config(folder).env)
    try:
        require_same(spec_of(env), source.robot.spec, left_name=str(folder), right_name="the robot")
    finally:
        env.close()
    if name == "limits":
        return _clip(ClipSettings(), source)
    speed: Loaded = _build_speed(source)
    return speed


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


def _convex(settings: ConvexSettings, source: Source) -> Loaded:
    return Loaded(state_guard(settings.constraints, source.rest), ("constraints",))


def _chain(settings: ChainSettings, source: Source) -> Loaded:
    parts = [
        load_safeguard(source.path.parent / name, source.robot, source.spec, within=source.within)
        for name in settings.files
    ]
    memories = [
        memory
        for part in parts
        if isinstance(part.safeguard, Remembering)
        for memory in part.safeguard.memories
    ]
    chain = Chain(*[_inner(part.safeguard) for part in parts], fallback=source.rest)
    labels = tuple(label for part in parts for label in part.labels)

    def margins(observation: Tensor, decision: Decision) -> Tensor:
        return torch.cat([part.margins(observation, decision) for part in parts])

    discs = tuple(disc for part in parts for disc in part.discs)
    guard = Remembering(chain, memories) if memories else chain
    return Loaded(guard, labels, margins, discs, all(part.is_bounded for part in parts))


def _inner(safeguard: Safeguard) -> Safeguard:
    """Return what is remembered by the whole chain, and so not by the part."""
    return safeguard.safeguard if isinstance(safeguard, Remembering) else safeguard


KINDS: Mapping[str, Kind] = {
    "clip": Kind(ClipSettings(), _clip),
    "rate_limit": Kind(RateLimitSettings(), _rate_limit),
    "world": Kind(WorldSettings(), build_world),
    "barrier": Kind(BarrierSettings(), build_barrier),
    "convex": Kind(ConvexSettings(), _convex),
    "acs": Kind(ACSSettings(), _build_acs),
    "visit_limit": Kind(VisitLimitSettings(), _build_visit_limit),
    "chain": Kind(ChainSettings(), _chain),
}
"""Safeguards by the word `kind` in their file."""

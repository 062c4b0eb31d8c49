"""The safeguards that a command can name, for training and afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from gymnasium.vector import SyncVectorEnv, VectorEnv
from torch import Tensor

from safectl.errors import ConfigError, FileFormatError, UnknownNameError
from safectl.files import read_json, write_json
from safectl.safeguards import BarrierQP, Clip
from safectl.types import Safeguard
from safectl_agents.calibration import CalibrationRun, calibrate_guard
from safectl_agents.models import Env, GuardFactory, make_env
from safectl_agents.run_folder import (
    calibrated_path,
    load_config,
    load_guard,
    load_trained,
)
from safectl_agents.speed_guard import SpeedGuard, observes_its_speed
from safectl_envs import SafeEnv, SafeVectorEnv, true_state
from safectl_envs.guard import Guard, VectorGuard
from safectl_envs.signals import spec_of
from safectl_envs.world import World

GuardName = Literal["auto", "none", "limits", "barrier", "speed"]
"""`barrier`: the world's barrier with its true model and state. `speed`: the learned speed limit of
a velocity task. `limits`: the action limits. `auto`: the first of these that the environment has,
without `limits`."""

CALIBRATION_STEPS = 25_000
"""Three intervals of the speed guard, so three margins, and some."""

_FILE = "guard.json"


def choose_guard(name: GuardName, env: str) -> GuardName:
    """Resolve `auto`, and refuse a guard that the environment cannot have.

    Raises:
        UnknownNameError: If there is no such environment.
        ConfigError: If the guard does not fit it.
    """
    probe = make_env(env)
    inner = probe.unwrapped
    is_world = isinstance(inner, SafeEnv)
    has_speed = observes_its_speed(probe)
    probe.close()
    if name == "auto":
        return "barrier" if is_world else "speed" if has_speed else "none"
    if (name == "barrier" and not is_world) or (name == "speed" and not has_speed):
        fits = ["none", "limits"] + ["barrier"] * is_world + ["speed"] * has_speed
        raise ConfigError("guard", f"{name!r} does not fit {env}; use one of {fits}")
    return name


def guard_factory(name: GuardName, *, seed: int) -> GuardFactory | None:
    """Return how training makes a chosen guard."""

    def make(env: Env | VectorEnv[Any, Any, Any], _rows: int) -> Safeguard:
        return _make(name, env, seed)

    if name == "none":
        return None
    return GuardFactory(make, state=true_state if name == "barrier" else None)


def world_guard(world: World) -> BarrierQP:
    """Make the guard `barrier`: a world's barrier with its true model."""
    return BarrierQP(world.barrier, world.dynamics, fallback=world.fallback)


def trained_guard(folder: Path, env: Env) -> Safeguard:
    """Make the guard that a run was trained with, as it was learned, for the control loop.

    Raises:
        FileFormatError: If the run's last checkpoint cannot be read.
        ConfigError: If the guard needs the true state, which the loop does not have.
    """
    name = load_guard_name(folder)
    if name == "barrier":
        raise ConfigError(
            "run", "a barrier over the true state needs it; train with limits or speed"
        )
    guard = Clip(spec_of(env)) if name == "none" else _make(name, env, load_config(folder).seed)
    if isinstance(guard, SpeedGuard):
        load_guard(folder, guard)
    return guard


def guarded_env(name: GuardName, env: str, folder: Path, *, seed: int, render: bool = False) -> Env:
    """Make an environment with the guard that a run was trained with, as it was learned.

    Raises:
        FileFormatError: If the run's last checkpoint cannot be read.
    """
    bare = make_env(env, render=render)
    if name == "none":
        return bare
    guard = _make(name, bare, seed)
    if isinstance(guard, SpeedGuard):
        load_guard(folder, guard)
    return Guard(bare, guard, state=true_state if name == "barrier" else None)


def guarded_envs(
    name: GuardName, env: str, folder: Path, *, seed: int
) -> Callable[[int], VectorEnv[Any, Any, Any]]:
    """Return what makes copies of an environment behind the guard that a run was trained with.

    Raises:
        FileFormatError: From what is returned, if the run's last checkpoint cannot be read.
    """

    def make_copies(count: int) -> VectorEnv[Any, Any, Any]:
        copies = SyncVectorEnv([lambda: make_env(env)] * count)
        if name == "none":
            return copies
        guard = _make(name, copies.envs[0], seed)
        if isinstance(guard, SpeedGuard):
            load_guard(folder, guard)
        state = _states if name == "barrier" else None
        return VectorGuard(copies, guard, state=state)

    return make_copies


def _states(copies: object) -> Tensor:
    assert isinstance(copies, SyncVectorEnv), "guarded_envs makes no other"
    return torch.cat([true_state(single) for single in copies.envs])


def calibrate_run(folder: Path, *, steps: int = CALIBRATION_STEPS) -> CalibrationRun:
    """Calibrate a run's learned guard on its trained policy, once per checkpoint.

    Other guards are left alone, and one that has not seen enough to have a model.

    Raises:
        FileFormatError: If the run holds no checkpoint that can be read.
    """
    config, name = load_config(folder), load_guard_name(folder)
    if name != "speed" or calibrated_path(folder).exists():
        return CalibrationRun(0, 0)
    env = make_env(config.env)
    try:
        guard = SpeedGuard(env, seed=config.seed)
        load_guard(folder, guard)
        if guard.layer is None:
            return CalibrationRun(0, 0)
        return calibrate_guard(load_trained(folder), guard, config, folder, steps=steps)
    finally:
        env.close()


def save_guard_name(name: GuardName, folder: Path) -> None:
    """Note in a run's folder which guard it is trained with."""
    write_json(folder / _FILE, {"guard": name})


def load_guard_name(folder: Path) -> GuardName:
    """Read which guard a run was trained with.

    Raises:
        FileFormatError: If the folder does not say.
    """
    name = read_json(folder / _FILE, advice="name the folder of a training run").get("guard")
    for known in get_args(GuardName):
        if name == known:
            return known  # type: ignore[no-any-return]  # get_args has no types
    raise FileFormatError(folder / _FILE, f"names no guard, but {name!r}", "train again")


def _make(name: GuardName, env: Env | VectorEnv[Any, Any, Any], seed: int) -> Safeguard:
    inner = env.unwrapped
    if name == "barrier" and isinstance(inner, SafeEnv | SafeVectorEnv):
        return world_guard(inner.world)
    if isinstance(inner, SafeVectorEnv):
        return Clip(inner.world.spec)
    if isinstance(env, VectorEnv):
        raise UnknownNameError("guard of a vector environment", name, known=["barrier", "limits"])
    return SpeedGuard(env, seed=seed) if name == "speed" else Clip(spec_of(env))

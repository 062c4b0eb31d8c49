"""Policies from files: the folder of a training run, an exported program, or a TOML file.

A kind of policy is one line in `KINDS`; the settings are those of its TOML file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError
from safectl.export import Program, interpret, load_program
from safectl.spec import Spec, require_same
from safectl.types import Policy
from safectl_agents.models import make_env
from safectl_agents.run_folder import load_config, load_trained
from safectl_envs.signals import spec_of
from safectl_ros.kinds import Kind, Source, late, named, read_kind


@dataclass(frozen=True, slots=True)
class ConstantSettings:
    """Always the same action."""

    action: tuple[float, ...] = ()
    """One value per action, in its unit."""


@dataclass(frozen=True, slots=True)
class RandomSettings:
    """Uniform draws within the limits: what a guard has to stand."""

    seed: int = 0
    """Seed of the draws, >= 0."""


@dataclass(frozen=True, slots=True)
class FBSettings:
    """A task, carried out by a forward-backward model."""

    run: str = ""
    """Folder of `safectl train fb`, relative to this file."""
    task: str = ""
    """Task of its domain; empty with a goal. Without either: the one of its measured visits."""
    goal: tuple[float, ...] = ()
    """Observation to reach; empty with a task."""
    data: str = ""
    """Folder of the training's episodes, relative to this file, for a task without a goal."""


def load_policy(path: Path, spec: Spec) -> Policy:
    """Build a policy for a robot.

    Args:
        path: Folder of a run, folder of an exported program, or TOML file.
        spec: Signals of the robot.

    Raises:
        ConfigError: If the path holds no policy for this robot, with the reason.
    """
    with named("policy", path):
        if (path / "program.json").exists():
            return _ProgramPolicy(path, spec)
        if path.is_dir():
            return _from_run(path, spec)
        kind, settings = read_kind(path, KINDS, "policy")
        policy: Policy = kind.build(settings, Source(spec, path))
        return policy


class _ProgramPolicy:
    """The actions of an exported program, by its interpreter; its state goes from call to call."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        self._program: Program = load_program(folder)
        require_same(self._program.spec, spec, left_name=str(folder), right_name="the robot")
        self._states: Mapping[str, Any] | None = None

    def act(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        steps = interpret(self._program, observation.numpy().astype(np.float32), self._states)
        self._states = steps.states or None
        return torch.from_numpy(steps.action)


class _Constant:
    """One action for every observation."""

    def __init__(self, settings: ConstantSettings, source: Source) -> None:
        spec = source.spec
        if len(settings.action) != spec.nu:
            expected = f"{spec.nu} numbers"
            raise RangeError("action", value=settings.action, expected=expected)
        self._action = torch.tensor([settings.action])

    def act(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        return self._action.expand(len(observation), -1)


class _Random:
    """Uniform draws within the limits of the action."""

    def __init__(self, settings: RandomSettings, source: Source) -> None:
        spec = source.spec
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._low, self._high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)

    def act(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        share = torch.rand(len(observation), len(self._low), generator=self._generator)
        return self._low + share * (self._high - self._low)


def _from_run(folder: Path, spec: Spec) -> Policy:
    env = make_env(load_config(folder).env)
    try:
        require_same(spec_of(env), spec, left_name=str(folder), right_name="the robot")
    finally:
        env.close()
    return load_trained(folder)


KINDS: Mapping[str, Kind] = {
    "constant": Kind(ConstantSettings(), _Constant),
    "random": Kind(RandomSettings(), _Random),
    "fb": Kind(FBSettings(), late("safectl_ros.fb_policy:build")),
}
"""Policies by the word `kind` in their file."""

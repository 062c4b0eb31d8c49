"""Importing Safety-Gymnasium 1.0.0 where Python, Gymnasium and NumPy are newer than it expects.

Everything that is patched for the import is restored after it.
"""

import copy
import dataclasses
import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import wrappers
from gymnasium.envs import registration

from safectl.errors import MissingExtra
from safectl_envs.graphics import prefer_headless

Untyped: TypeAlias = Any
"""Something that belongs to a package without type annotations."""

BUILDER = "safety_gymnasium.builder:Builder"
"""Entry point of the navigation tasks."""


def construct(entry_point: str, options: Mapping[str, object]) -> Untyped:
    """Make what an entry point `module:class` of Safety-Gymnasium names.

    Raises:
        MissingExtra: If the package or something it needs is not installed.
    """
    prefer_headless()
    creator = load_creator(entry_point)
    with warnings.catch_warnings():
        # A float32 bound of a float64 box, compared with the largest float64.
        warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning)
        # A joint's number that is an array of one element.
        warnings.filterwarnings("ignore", "Conversion of an array with ndim", DeprecationWarning)
        return creator(**options)


@functools.cache
def load_creator(entry_point: str) -> Callable[..., Untyped]:
    """Import the class behind an entry point, and repair what newer libraries broke."""
    module, _, name = entry_point.partition(":")
    try:
        with _importable():
            creator: Callable[..., Untyped] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        missing = MissingExtra(error.name or "safety-gymnasium", "envs")
        missing.add_note("Then run: pip install --no-deps safety-gymnasium==1.0.0")
        raise missing from error
    if entry_point == BUILDER:
        _repair()
    return creator


@contextmanager
def _importable() -> Iterator[None]:
    """Let Safety-Gymnasium be imported; on leaving, what others share is as it was.

    While it lasts, `dataclasses.dataclass` accepts arrays as defaults, the modules that Gymnasium 1
    removed exist, and the registry is empty of names that the package adds to it.
    """
    stand_ins = _make_stand_ins()
    modules = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    specs = dict(registration.registry)
    dataclass = dataclasses.dataclass
    try:
        sys.modules.update(stand_ins)
        for name in [name for name in specs if name.startswith("Safety")]:
            del registration.registry[name]
        vars(dataclasses)["dataclass"] = functools.partial(_dataclass_with_arrays, dataclass)
        yield
    finally:
        vars(dataclasses)["dataclass"] = dataclass
        registration.registry.clear()
        registration.registry.update(specs)
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(modules)


def _make_stand_ins() -> dict[str, ModuleType]:
    names: dict[str, dict[str, object]] = {
        "gymnasium.wrappers.autoreset": {"AutoResetWrapper": wrappers.Autoreset},
        "gymnasium.wrappers.compatibility": {"EnvCompatibility": gymnasium.Wrapper},
        "gymnasium.wrappers.env_checker": vars(wrappers),
        "gymnasium.wrappers.normalize": {**vars(wrappers), **vars(wrappers.utils)},
        "gymnasium.wrappers.time_limit": vars(wrappers),
        # Only the multi-agent tasks, which are left out, need gymnasium-robotics and pettingzoo.
        "safety_gymnasium.tasks.safe_multi_agent.safe_mujoco_multi": {"make_ma": None},
    }
    stand_ins = {name: ModuleType(name) for name in names}
    for name, module in stand_ins.items():
        vars(module).update(names[name])
    return stand_ins


def _dataclass_with_arrays(
    dataclass: Callable[..., type], cls: type | None = None, /, **options: bool
) -> Untyped:
    """Decorate as `dataclass` does; an array as default is copied for each object."""
    if cls is None:
        return functools.partial(_dataclass_with_arrays, dataclass, **options)
    for name in vars(cls).get("__annotations__", {}):
        default = vars(cls).get(name)
        if isinstance(default, np.ndarray):
            setattr(cls, name, dataclasses.field(default_factory=default.copy))
    return dataclass(cls, **options)


def _repair() -> None:
    """Replace what the navigation tasks do in a way that newer libraries refuse, and the sky."""
    underlying: Untyped = importlib.import_module("safety_gymnasium.bases.underlying")
    agents: Untyped = importlib.import_module("safety_gymnasium.bases.base_agent")
    world: Untyped = importlib.import_module("safety_gymnasium.world")
    viewer, get_sensor = underlying.OffScreenViewer, agents.BaseAgent.get_sensor
    safe_load = world.yaml.safe_load
    sky = {"@type": "skybox", "@builtin": "gradient", "@width": "32", "@height": "192"}
    sky |= {"@rgb1": "0.6 0.75 0.9", "@rgb2": "0.1 0.15 0.3"}

    def make_viewer(model: Untyped, data: Untyped) -> Untyped:
        # Gymnasium 1 asks for the size, which the caller has just written into the model.
        size = model.vis.global_
        return viewer(model, data, width=int(size.offwidth), height=int(size.offheight))

    def get_scalar_sensor(agent: Untyped, name: str) -> Untyped:
        # The caller makes a float of an angle, which NumPy 2 wants without axes.
        value = get_sensor(agent, name)
        return value.reshape(()) if name in agent.sensor_info.hinge_pos_names else value

    @functools.cache
    def parse(text: str) -> Untyped:
        assets = safe_load(text)
        assets["textures"]["skybox"] = sky
        return assets

    def load(file: Untyped, **_: Untyped) -> Untyped:
        return copy.deepcopy(parse(file.read()))

    underlying.OffScreenViewer = make_viewer
    agents.BaseAgent.get_sensor = get_scalar_sensor
    world.yaml = SimpleNamespace(load=load, FullLoader=None)

"""The safeguard of a guard: loaded, warmed up, and built again with other limits."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from safectl.errors import ConfigError, SafectlError
from safectl.safeguards import Memory, Remembering
from safectl.spec import Spec
from safectl.types import Safeguard
from safectl_ros.fingerprint import Fingerprint, fingerprint
from safectl_ros.loaded import Loaded
from safectl_ros.robot_file import Robot, limited
from safectl_ros.safeguards import load_safeguard

PERIOD_TOLERANCE = 0.01
"""How much longer than the robot's period that of the outputs may be, as a share of it."""


def load_limited(source: Path, robot: Robot, shares: Iterable[float]) -> tuple[Loaded, Spec]:
    """Load a safeguard with a share of the robot's limits; return it and the limits in force.

    Raises:
        ConfigError, RangeError: As `load_safeguard` and `limited`.
    """
    spec = limited(robot.spec, list(shares))
    return load_safeguard(source, robot, spec), spec


def rebuild_safeguard(
    source: Path, robot: Robot, shares: Iterable[float], files: Fingerprint
) -> Loaded:
    """Build a safeguard again with other limits, from the files of the configuration.

    Raises:
        ConfigError, RangeError: If that is impossible, or the files are others by now.
    """
    try:
        loaded, spec = load_limited(source, robot, shares)
        warm_up(apart(loaded.safeguard)[0], spec)
    except SafectlError:
        raise
    except Exception as error:  # a guard outlives a broken file
        raise ConfigError(f"safeguard {source}", describe(error)) from error
    if fingerprint(source) != files:
        problem = "has changed since the guard was configured; clean up and configure again"
        raise ConfigError(f"safeguard {source}", problem)
    return loaded


def describe(error: Exception) -> str:
    """Return what a foreign error says, and its type where that is nothing."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def output_period(values: Mapping[str, Any], spec: Spec, *, is_steady: bool) -> float:
    """Return the time between two outputs [s].

    Raises:
        ConfigError: If commands are held for longer than the safeguard reckons with.
    """
    period_s = 1.0 / float(values["rate_hz"])
    if is_steady and period_s > spec.period * (1.0 + PERIOD_TOLERANCE):
        problem = (
            f"rate_hz is {values['rate_hz']:g}, but the robot's period is {spec.period:g} s: "
            f"use {1.0 / spec.period:g} or more"
        )
        raise ConfigError(f"parameters of the guard of {values['robot']}", problem)
    return period_s


def warm_up(safeguard: Safeguard, spec: Spec) -> None:
    """Filter a few proposals, so that the first command does not pay for what is loaded lazily."""
    observation = torch.zeros(1, spec.nx)
    for proposal in (spec.action_low, spec.action_high, [math.nan] * spec.nu):
        safeguard.filter(observation, torch.tensor([proposal]))


def apart(safeguard: Safeguard) -> tuple[Safeguard, tuple[Memory, ...]]:
    """Return what decides, and the memories: they are told what is sent, not what is decided."""
    if isinstance(safeguard, Remembering):
        return safeguard.safeguard, safeguard.memories
    return safeguard, ()

"""`safectl run`: a trained policy with its guard on a robot, simulated or behind a serial line."""

import json
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from safectl.errors import ConfigError, RangeError
from safectl.loop import Clock, LoopResult, run_loop
from safectl.record import Recorder
from safectl_agents.guards import trained_guard
from safectl_agents.models import make_env
from safectl_agents.run_folder import load_config, load_trained
from safectl_envs.signals import spec_of
from safectl_hardware.port import BAUD, serial_port
from safectl_hardware.serial import SerialBridge
from safectl_hardware.sim import SimBridge


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What to run, on which robot, for how long."""

    folder: Path = Path()
    """Folder of a training run; also the first word after `run`."""
    bridge: Literal["sim", "serial"] = "sim"
    """The environment of the run, or a board whose specification is that of the environment."""
    port: str = ""
    """Serial port of the board."""
    baud: int = BAUD
    """Speed of the serial line [bit/s], > 0."""
    steps: int = 1000
    """Periods, >= 1."""
    seed: int = 0
    """Of the simulated robot, >= 0."""
    record: Path | None = None
    """MCAP file to write; none without."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("seed", 0), ("baud", 1)):
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f"at least {low}")


DEFAULTS = RunSettings()


def run(settings: RunSettings) -> int:
    """Run the loop; the robot is stopped on entry, on exit and on any error."""
    if settings.folder == Path():
        raise ConfigError("run", "name the folder of a training run")
    if (settings.bridge == "serial") != bool(settings.port):
        raise ConfigError("run", "--bridge serial and --port belong together")
    result = _loop(settings)
    if settings.json:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
    else:
        sys.stdout.write(
            f"{result.steps} steps, {result.corrected} corrected, {result.fallbacks} fallbacks\n"
        )
    return 0


def _loop(settings: RunSettings) -> LoopResult:
    policy = load_trained(settings.folder)
    with closing(make_env(load_config(settings.folder).env)) as env:
        spec, guard = spec_of(env), trained_guard(settings.folder, env)
        bridge: SimBridge | SerialBridge
        clock: Clock | None = None
        if settings.bridge == "serial":
            bridge = SerialBridge(serial_port(settings.port, baud=settings.baud), spec)
        else:
            stopped = np.clip(np.zeros(spec.nu), spec.action_low, spec.action_high)
            bridge = SimBridge(env, spec, stop_action=stopped, seed=settings.seed)
            clock = bridge
        recorder = None if settings.record is None else Recorder(settings.record, spec)
        return run_loop(bridge, policy, guard, steps=settings.steps, recorder=recorder, clock=clock)

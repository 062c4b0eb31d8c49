"""`safectl train`: train an agent through a safeguard, or go on with a run."""

import json
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from safectl.errors import ConfigError
from safectl_agents.calibration import CalibrationRun
from safectl_agents.callbacks import ProgressBar
from safectl_agents.guards import (
    GuardName,
    calibrate_run,
    choose_guard,
    guard_factory,
    load_guard_name,
    save_guard_name,
)
from safectl_agents.plots import PlotSettings, plot_runs
from safectl_agents.run_folder import load_config
from safectl_agents.settings import TrainConfig
from safectl_agents.train import TrainResult, train


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What to train and where."""

    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainConfig(env="safectl/PointHazard-v0")
    )
    """The training run; a table of that name in a TOML file."""
    guard: GuardName = "auto"
    """Safeguard: the world's barrier, the learned speed limit, the action limits, or none."""
    folder: Path | None = None
    """Folder of the run; `runs/<env>-<algorithm>-<seed>` without."""
    resume: Path | None = None
    """Folder of a run to go on with, under the settings it was started with."""
    until: int | None = None
    """With `--resume`: total steps to go on to; those of the run without."""
    json: bool = False
    """Print the result as JSON."""


DEFAULTS = TrainSettings()


def run(settings: TrainSettings) -> int:
    """Train, plot and say where everything is."""
    if settings.resume is not None:
        folder = settings.resume
        _require_untouched(settings)
        stored = load_config(folder)
        config = replace(stored, steps=settings.until or stored.steps)
        guard = load_guard_name(folder)
    else:
        config, guard = settings.run, choose_guard(settings.guard, settings.run.env)
        folder = settings.folder or _default_folder(config)
        if (folder / "config.json").exists():
            problem = f"holds a run already; go on with: safectl train --resume {folder}"
            raise ConfigError(str(folder), problem)
        save_guard_name(guard, folder)
    console = Console(stderr=True)
    console.print(f"{config.env}, {config.algorithm}, guard: {guard}, {folder}", highlight=False)
    with ProgressBar(config.steps, console) as bar:
        result = train(
            config,
            folder=folder,
            guard=guard_factory(guard, seed=config.seed),
            callbacks=[bar],
            resume=settings.resume is not None,
        )
    calibration = calibrate_run(folder)
    title = f"{config.env}, {config.algorithm}, guard: {guard}, seed {config.seed}"
    plot_runs({guard: folder}, folder / "curves.png", PlotSettings(title=title))
    _report(result, guard, calibration, as_json=settings.json)
    return 0


def _require_untouched(settings: TrainSettings) -> None:
    """Refuse options that a resumed run would ignore."""
    asked = replace(settings, resume=None, until=None, json=False)
    for part in fields(TrainSettings):
        if getattr(asked, part.name) != getattr(DEFAULTS, part.name):
            problem = f"a resumed run keeps its own {part.name}; only --until may be given"
            raise ConfigError("--resume", problem)


def _default_folder(config: TrainConfig) -> Path:
    return Path("runs") / f"{Path(config.env).name}-{config.algorithm}-{config.seed}"


def _report(
    result: TrainResult, guard: GuardName, calibration: CalibrationRun, *, as_json: bool
) -> None:
    facts = {
        "folder": str(result.folder),
        "guard": guard,
        "steps": result.steps,
        "violations": result.violations,
        "calibration_steps": calibration.steps,
        "calibration_violations": calibration.violations,
        "steps_per_second": round(result.steps_per_second, 1),
    }
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    sys.stdout.write(
        f"{result.steps} steps at {result.steps_per_second:.0f} steps/s, {result.violations} "
        f"violations while training\n"
        f"{_calibration_line(calibration)}"
        f"next: safectl evaluate {result.folder}\n"
    )


def _calibration_line(calibration: CalibrationRun) -> str:
    if calibration.steps == 0:
        return ""
    return f"{calibration.steps} steps calibrated the guard, {calibration.violations} violations\n"

"""`safectl train kinematics`: learn forward kinematics from logs, for predictive control."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from safectl.errors import ConfigError, RangeError
from safectl.export import save_program
from safectl.files import write_json
from safectl.planners import forward_model
from safectl_agents.composites.log import make_windows
from safectl_agents.composites.log_files import Columns, read_logs
from safectl_agents.composites.pictures import plot_prediction
from safectl_agents.composites.training import (
    TrainingOptions,
    network_program,
    train_forward_model,
)


@dataclass(frozen=True, slots=True)
class TrainKinematicsSettings:
    """What to learn from, and where the result goes."""

    logs: tuple[Path, ...] = ()
    """CSV, npz or MCAP files or folders of Minari datasets, one run each; also the first word."""
    columns: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)
    """What of a log is u, y and sensors."""
    network: Annotated[TrainingOptions, tyro.conf.arg(name="")] = field(
        default_factory=TrainingOptions
    )
    """Network and training."""
    input_lags: int = 2
    """nd, inputs that the network sees."""
    output_lags: int = 2
    """dd, outputs that the network sees."""
    held_out: float = 0.2
    """Share at the end of each run that only measures, in (0, 1)."""
    folder: Path = Path("runs/kinematics")
    """Of the result; a training in it goes on."""
    json: bool = False
    """Print the result as JSON."""


DEFAULTS = TrainKinematicsSettings()


def run(settings: TrainKinematicsSettings) -> int:
    """Train, save the network as a program, and draw what it predicts."""
    if not settings.logs:
        raise ConfigError("train kinematics", "name at least one log")
    logs = [log for path in settings.logs for log in read_logs(path, settings.columns)]
    if not logs or 0 in (logs[0].inputs.shape[1], logs[0].outputs.shape[1]):
        raise RangeError("columns", value=settings.columns, expected="inputs and outputs")
    lags = {"input_lags": settings.input_lags, "output_lags": settings.output_lags}
    windows = [make_windows(log, **lags) for log in logs]
    trained = train_forward_model(
        windows,
        settings.network,
        held_out=settings.held_out,
        folder=settings.folder / "training",
        shows_progress=True,
    )
    save_program(network_program(trained.network), settings.folder / "program")
    model = forward_model(trained.network)
    plot_prediction(model, windows[-1], settings.folder / "prediction.png")
    facts = {
        "runs": len(logs),
        "rows": sum(len(part.inputs) for part in windows),
        "held_out_rms": trained.error,
        **lags,
        "inputs": windows[0].inputs.shape[1],
        "outputs": windows[0].outputs.shape[1],
    }
    write_json(settings.folder / "kinematics.json", facts)
    if settings.json:
        sys.stdout.write(json.dumps({"folder": str(settings.folder), **facts}) + "\n")
    else:
        sys.stdout.write(
            f"{settings.folder}/program predicts held-out rows within {trained.error:.3g} RMS\n"
            f"picture: {settings.folder}/prediction.png\n"
            f"next: safectl verify {settings.folder}, and docs/predictive.md for the controller\n"
        )
    return 0

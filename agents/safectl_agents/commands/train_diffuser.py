"""`safectl train diffuser`: make the data, train a diffusion model of plans, or go on with it."""

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from safectl.errors import RangeError
from safectl_agents.diffusion.model import save_model
from safectl_agents.diffusion.plan_data import plan_data
from safectl_agents.diffusion.settings import DiffuserConfig, preset
from safectl_agents.diffusion.train import Trainer, train


@dataclass(frozen=True, slots=True)
class TrainDiffuserSettings:
    """What to train and where."""

    preset: str = "umaze-small"
    """Named settings: umaze-small (3045 s on a loaded machine), umaze, medium, large, ..."""
    updates: int | None = None
    """Optimiser steps; those of the preset without."""
    data_steps: int | None = None
    """Steps of the world in the data that are made; those of the preset without."""
    dataset: str = ""
    """Minari dataset or HDF5 file in place of data that are made."""
    seed: int = 0
    """Of data, first weights, rows and noise."""
    device: str = "cpu"
    """Where to train: cpu or cuda."""
    threads: int = 0
    """Threads of the processor; those of torch for 0."""
    folder: Path | None = None
    """Of the run; `runs/diffuser-<preset>-<seed>` without. A run in it goes on."""
    json: bool = False
    """Print the result as JSON."""


DEFAULTS = TrainDiffuserSettings()


def run(settings: TrainDiffuserSettings) -> int:
    """Train, save the averaged network and say where it is."""
    if settings.threads < 0:
        raise RangeError("threads", value=settings.threads, expected="0 or more")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    config = _config(settings)
    folder = settings.folder or Path("runs") / f"diffuser-{settings.preset}-{settings.seed}"
    console = Console(stderr=True)
    console.print(f"{settings.preset}: data of {config.dataset}, {folder}", highlight=False)
    started = time.monotonic()
    data = plan_data(config, folder)
    trainer = Trainer(config, data.rows, nu=data.spec.nu, device=settings.device)
    columns = (
        TextColumn("updates"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=config.updates, loss=float("nan"))
        network = train(
            trainer,
            folder,
            after_update=lambda done, loss: progress.update(task, completed=done, loss=loss),
        )
    seconds = time.monotonic() - started
    metrics = {
        "updates": trainer.update,
        "seconds_of_this_call": round(seconds, 1),
        "command": _command(settings),
    }
    save_model(folder / "model", network, config, data.normaliser, data.spec, metrics)
    facts = {"folder": str(folder), "model": str(folder / "model"), **metrics}
    if settings.json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        sys.stdout.write(
            f"{trainer.update} updates in {seconds:.0f} s\nnext: safectl plan {folder / 'model'}\n"
        )
    return 0


def _config(settings: TrainDiffuserSettings) -> DiffuserConfig:
    named = preset(settings.preset)
    return replace(
        named,
        seed=settings.seed,
        updates=named.updates if settings.updates is None else settings.updates,
        data_steps=named.data_steps if settings.data_steps is None else settings.data_steps,
        dataset=settings.dataset or named.dataset,
    )


def _command(settings: TrainDiffuserSettings) -> str:
    """Return the call that repeats this training."""
    words = [f"safectl train diffuser --preset {settings.preset} --seed {settings.seed}"]
    for name in ("updates", "data_steps", "dataset"):
        value = getattr(settings, name)
        if value:
            words.append(f"--{name.replace('_', '-')} {value}")
    return " ".join(words)

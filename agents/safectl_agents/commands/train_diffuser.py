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
    """Named settings: umaze-small (11 min of one core), umaze, medium, large, hopper-small, ..."""
    updates: int | None = None
    """Optimiser steps; those of the preset without."""
    batch: int | None = None
    """Plans per update; those of the preset without."""
    data_steps: int | None = None
    """Steps of the world in the data that are made; those of the preset without."""
    dataset: str = ""
    """Minari dataset or HDF5 file in place of data that are made."""
    seed: int = 0
    """Of data, first weights, rows and noise."""
    device: str = "cpu"
    """Where to train: cpu or cuda."""
    compiles: bool = False
    """Compile the network by torch.compile, on a GPU with CUDA graphs; needs a C++ compiler."""
    threads: int = 0
    """Threads of the processor; those of torch for 0."""
    folder: Path | None = None
    """Of the run; `runs/diffuser-<preset>-<seed>` without. A run in it goes on."""
    json: bool = False
    """Print the result as JSON."""


DEFAULTS = TrainDiffuserSettings()


def run(settings: TrainDiffuserSettings) -> int:
    """Train, save the averaged network and say where it is."""
    use_threads(settings.threads)
    config = config_of(settings)
    folder = settings.folder or folder_of(settings)
    console = Console(stderr=True)
    console.print(f"{settings.preset}: data of {config.dataset}, {folder}", highlight=False)
    started = time.monotonic()
    data = plan_data(config, folder)
    trainer = Trainer(
        config,
        data.rows,
        nu=data.spec.nu,
        device=settings.device,
        compiles=settings.compiles,
    )
    train_with_bar(trainer, folder, console)
    metrics = metrics_of(trainer, started, f"safectl train diffuser {words_of(settings)}")
    save_model(folder / "model", trainer.average, config, data.normaliser, data.spec, metrics)
    report(folder, metrics, f"safectl plan {folder / 'model'}", as_json=settings.json)
    return 0


def use_threads(threads: int) -> None:
    """Limit the threads of torch, where a number is named.

    Raises:
        RangeError: If the number is negative.
    """
    if threads < 0:
        raise RangeError("threads", value=threads, expected="0 or more")
    if threads:
        torch.set_num_threads(threads)


def config_of(settings: TrainDiffuserSettings) -> DiffuserConfig:
    """Return the preset with what was named in its place."""
    named = preset(settings.preset)
    return replace(
        named,
        seed=settings.seed,
        updates=named.updates if settings.updates is None else settings.updates,
        batch=named.batch if settings.batch is None else settings.batch,
        data_steps=named.data_steps if settings.data_steps is None else settings.data_steps,
        dataset=settings.dataset or named.dataset,
    )


def folder_of(settings: TrainDiffuserSettings) -> Path:
    """Return the folder of a run that was not named."""
    return Path("runs") / f"diffuser-{settings.preset}-{settings.seed}"


def words_of(settings: TrainDiffuserSettings) -> str:
    """Return the words of the call that repeats a training."""
    words = [f"--preset {settings.preset} --seed {settings.seed}"]
    for name in ("updates", "batch", "data_steps", "dataset"):
        value = getattr(settings, name)
        if value:
            words.append(f"--{name.replace('_', '-')} {value}")
    return " ".join(words)


def train_with_bar(trainer: Trainer, folder: Path, console: Console) -> None:
    """Train to the end of the settings, or go on, and show how far it is."""
    columns = (
        TextColumn("updates"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=trainer.config.updates, loss=float("nan"))
        train(
            trainer,
            folder,
            after_update=lambda done, loss: progress.update(task, completed=done, loss=loss),
        )


def metrics_of(trainer: Trainer, started: float, command: str) -> dict[str, object]:
    """Return what is stored beside the weights."""
    return {
        "updates": trainer.update,
        "seconds_of_this_call": round(time.monotonic() - started, 1),
        "command": command,
    }


def report(folder: Path, metrics: dict[str, object], following: str, *, as_json: bool) -> None:
    """Print where the model is and what comes next."""
    facts = {"folder": str(folder), "model": str(folder / "model"), **metrics}
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        seconds = metrics["seconds_of_this_call"]
        sys.stdout.write(f"{metrics['updates']} updates in {seconds} s\nnext: {following}\n")

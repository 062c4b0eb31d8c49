"""`safectl train world-model`: two streams against one of equal size, on the data of a maze."""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from safectl.errors import RangeError
from safectl_agents.diffusion.world_compare import (
    Runs,
    compare_streams,
    plot_samples,
    world_data,
)
from safectl_agents.diffusion.world_model import WorldModelConfig

_MODEL = WorldModelConfig()


@dataclass(frozen=True, slots=True)
class TrainWorldModelSettings:
    """What to train and where."""

    maze: str = "umaze"
    """Maze whose data are made."""
    data_steps: int = 100_000
    """Steps of the world in the data that are made."""
    updates: int = _MODEL.updates
    """Optimiser steps of each model."""
    width: int = _MODEL.width
    """Of the hidden layers of each of two streams; one stream gets as many weights."""
    seeds: int = 3
    """Models of each kind."""
    threads: int = 0
    """Threads of the processor; those of torch for 0."""
    folder: Path = Path("runs") / "world-model"
    """Of the data, the models and `samples.png`; models that are there are not trained again."""
    json: bool = False
    """Print the result as JSON."""


DEFAULTS = TrainWorldModelSettings()


def run(settings: TrainWorldModelSettings) -> int:
    """Train what is missing, measure, draw and print."""
    for name, least in (("threads", 0), ("seeds", 1)):
        if getattr(settings, name) < least:
            expected = f"{least} or more"
            raise RangeError(name, value=getattr(settings, name), expected=expected)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    config = replace(_MODEL, updates=settings.updates, width=settings.width)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("updates", total=2 * settings.seeds * config.updates)
        runs = compare_streams(
            config,
            settings.folder,
            maze=settings.maze,
            data_steps=settings.data_steps,
            seeds=settings.seeds,
            after_update=lambda done: bar.update(task, completed=done),
        )
    data = world_data(config, settings.folder, settings.maze, settings.data_steps)
    picture = plot_samples(config, settings.folder, data)
    if settings.json:
        found = {name: [each._asdict() for each in qualities] for name, qualities in runs.items()}
        sys.stdout.write(json.dumps({"settings": asdict(config), "runs": found}) + "\n")
    else:
        _print(runs)
        sys.stdout.write(f"samples of held-out windows: {picture}\n")
    return 0


def _print(runs: Runs) -> None:
    table = Table("model", "seed", "weights", "error [m]", "spread [m]", "predictor [m]")
    for name, qualities in runs.items():
        for seed, each in enumerate(qualities):
            figures = (each.error, each.spread, each.predictor_error)
            table.add_row(
                name, str(seed), f"{each.weights:,}", *(f"{value:.4f}" for value in figures)
            )
    Console().print(table, highlight=False)

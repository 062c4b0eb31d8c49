"""`safectl data`: make a data set for planners and world models."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from safectl_agents.diffusion.maze_data import MazeDataConfig, write_maze_data


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What to collect and where."""

    kind: Literal["maze2d"] = "maze2d"
    """Which data; also the first word."""
    maze2d: Annotated[MazeDataConfig, tyro.conf.arg(name="")] = field(
        default_factory=MazeDataConfig
    )
    """The waypoint controller in a maze."""
    out: Path | None = None
    """Folder of the Minari dataset; `data/<kind>-<name>` without."""
    json: bool = False
    """Print the result as JSON."""


DEFAULTS = DataSettings()


def run(settings: DataSettings) -> int:
    """Collect, store and say where; a command that was stopped goes on where it was."""
    config = settings.maze2d
    path = settings.out or Path("data") / f"maze2d-{config.maze}"
    columns = (TextColumn("{task.completed:,.0f} steps"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=config.streams * config.stream)
        steps = write_maze_data(config, path, progress=lambda n: bar.update(task, completed=n))
    facts = {"folder": str(path), "steps": steps, "seed": config.seed}
    line = json.dumps(facts) if settings.json else f"{steps:,} steps in {path}"
    sys.stdout.write(f"{line}\n")
    return 0

"""`safectl data`: make a data set for planners and world models."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from safectl.errors import UnknownNameError
from safectl_agents.diffusion.locomotion_data import LocomotionConfig, write_locomotion_data
from safectl_agents.diffusion.maze_data import MazeDataConfig, write_maze_data


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What to collect and where."""

    kind: str = "maze2d"
    """maze2d or locomotion; also the first word."""
    maze2d: Annotated[MazeDataConfig, tyro.conf.arg(name="")] = field(
        default_factory=MazeDataConfig
    )
    """The waypoint controller in a maze."""
    locomotion: LocomotionConfig = field(default_factory=LocomotionConfig)
    """Policies of Gymnasium's MuJoCo tasks."""
    out: Path | None = None
    """Folder of the Minari dataset; `data/<kind>-<name>` without."""
    json: bool = False
    """Print the result as JSON."""


DEFAULTS = DataSettings()


def run(settings: DataSettings) -> int:
    """Collect, store and say where; a command that was stopped goes on where it was."""
    if settings.kind not in _KINDS:
        raise UnknownNameError("data", settings.kind, known=_KINDS)
    columns = (TextColumn("{task.completed:,.0f} steps"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        path, steps = _write(
            settings, lambda n: bar.update(task, completed=n, total=_total(settings))
        )
    facts = {"folder": str(path), "steps": steps}
    line = json.dumps(facts) if settings.json else f"{steps:,} steps in {path}"
    sys.stdout.write(f"{line}\n")
    return 0


_KINDS = ("maze2d", "locomotion")


def _write(settings: DataSettings, progress: Callable[[int], None]) -> tuple[Path, int]:
    """Collect one kind; return the folder and the number of steps."""
    if settings.kind == "maze2d":
        path = settings.out or Path("data") / f"maze2d-{settings.maze2d.maze}"
        return path, write_maze_data(settings.maze2d, path, progress=progress)
    path = settings.out or Path("data") / f"locomotion-{settings.locomotion.env}"
    return path, write_locomotion_data(settings.locomotion, path, progress=progress)


def _total(settings: DataSettings) -> int:
    maze = settings.maze2d
    return maze.streams * maze.stream if settings.kind == "maze2d" else settings.locomotion.rows

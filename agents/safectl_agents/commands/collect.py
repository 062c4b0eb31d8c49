"""`safectl collect`: make reward-free data for forward-backward models, or go on making it."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from safectl_agents.fb.collect import CollectConfig, collect
from safectl_agents.fb.coverage import maze_coverage, plot_coverage


@dataclass(frozen=True, slots=True)
class CollectSettings:
    """What to collect and where."""

    run: Annotated[CollectConfig, tyro.conf.arg(name="")] = field(default_factory=CollectConfig)
    """The collection; a table of that name in a TOML file."""
    folder: Path | None = None
    """Folder of the collection; `data/<domain>/<collector>` without. One that exists goes on."""
    json: bool = False
    """Print JSON."""


DEFAULTS = CollectSettings()


def run(settings: CollectSettings) -> int:
    """Collect and say where the episodes are."""
    config = settings.run
    folder = settings.folder or Path("data") / config.domain / config.collector
    columns = (
        TextColumn("{task.description} {task.completed:,.0f}/{task.total:,.0f} episodes"),
        BarColumn(),
        TimeRemainingColumn(),
    )
    facts: dict[str, object] = {"episodes": config.episodes}
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("collect", total=config.episodes)
        buffer = collect(config, folder, progress=lambda done: bar.update(task, completed=done))
        if config.domain == "point_mass_maze":
            task = bar.add_task("cover", total=config.episodes)
            found = maze_coverage(buffer, progress=lambda done: bar.update(task, completed=done))
            plot_coverage(found, config.collector, folder / "coverage.png")
            facts |= {"coverage": found.share, "picture": str(folder / "coverage.png")}
    facts["buffer"] = str(buffer)
    if settings.json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    sys.stdout.write(f"{config.episodes} episodes in {buffer}\n")
    if "coverage" in facts:
        sys.stdout.write(f"{facts['coverage']:.1%} of the free cells: {facts['picture']}\n")
    sys.stdout.write(f"next: safectl train fb --data {buffer}\n")
    return 0

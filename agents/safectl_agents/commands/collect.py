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
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} episodes"),
        BarColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("collect", total=config.episodes)
        buffer = collect(config, folder, progress=lambda done: bar.update(task, completed=done))
    if settings.json:
        facts = {"episodes": config.episodes, "buffer": str(buffer)}
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        sys.stdout.write(
            f"{config.episodes} episodes in {buffer}\nnext: safectl train fb --data {buffer}\n"
        )
    return 0

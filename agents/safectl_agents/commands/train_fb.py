"""`safectl train fb`: train a forward-backward model, or go on with a run."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from safectl_agents.fb.plots import plot_trainings
from safectl_agents.fb.report import Report, report
from safectl_agents.fb.settings import FBConfig
from safectl_agents.fb.train import train

_SHOWN = ("mass", "value", "penalty", "alpha")


@dataclass(frozen=True, slots=True)
class TrainFBSettings:
    """What to train, from which data, and where."""

    run: Annotated[FBConfig, tyro.conf.arg(name="")] = field(default_factory=FBConfig)
    """The training; a table of that name in a TOML file."""
    data: Path | None = None
    """Folder of episodes; `data/<domain>/rnd/buffer` without."""
    folder: Path | None = None
    """Folder of the run; `runs/<domain>-<method>-<seed>` without, `<method>-aw` for a weighted
    policy. A run of the same settings in it goes on, up to `steps`."""
    json: bool = False
    """Print JSON."""


DEFAULTS = TrainFBSettings()


def run(settings: TrainFBSettings) -> int:
    """Train and print the scores of the last and of the best evaluation."""
    config = settings.run
    data = settings.data or Path("data") / config.domain / "rnd" / "buffer"
    method = config.update.method + ("-aw" if config.update.actor == "aw" else "")
    folder = settings.folder or Path("runs") / f"{config.domain}-{method}-{config.seed}"
    columns = (
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} updates"),
        BarColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=config.steps, status="")

        def show(step: int, figures: Mapping[str, float]) -> None:
            status = "  ".join(f"{n} {figures[n]:.3g}" for n in _SHOWN if n in figures)
            bar.update(task, completed=step, status=status)

        train(config, data, folder, progress=show)
    plot_trainings({method: folder}, folder / "curves.png")
    found = report(folder)
    if settings.json:
        sys.stdout.write(json.dumps({"folder": str(folder), "scores": scores_of(found)}) + "\n")
    else:
        sys.stdout.write(format_report(found) + f"\nnext: safectl evaluate fb {folder}\n")
    return 0


def scores_of(found: Report) -> dict[str, dict[str, float]]:
    """Return the scores of every evaluation and reference by task."""
    return {name: dict(zip(found.tasks, row, strict=True)) for name, row in found.rows.items()}


def format_report(found: Report) -> str:
    """Return a table: a row per evaluation and per reference, a column per task."""
    width = max(len(name) for name in found.tasks) + 2
    rows = [" " * 24 + "".join(f"{name:>{width}s}" for name in (*found.tasks, "mean"))]
    for label, scores in found.rows.items():
        cells = [*scores, sum(scores) / len(scores)]
        rows.append(f"{label:24s}" + "".join(f"{cell:{width}.1f}" for cell in cells))
    return "\n".join(rows)

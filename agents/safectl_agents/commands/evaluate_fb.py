"""`safectl evaluate fb`: score a forward-backward model, or compare it with and without a limit."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from safectl.errors import ConfigError
from safectl_agents.commands.train_fb import format_report, scores_of
from safectl_agents.fb.guarded import compare_guarded, steps_of
from safectl_agents.fb.report import report
from safectl_agents.fb.visit_plot import plot_compared


@dataclass(frozen=True, slots=True)
class EvaluateFBSettings:
    """Which run."""

    folder: Path = Path()
    """Folder of a run of `safectl train fb`."""
    guard: Literal["none", "visits"] = "none"
    """`visits` compares the task as asked, as measured by `safectl visits`, and behind that limit,
    and draws the ways into `visits.png`."""
    limit: float = 0.1
    """Largest admissible probability of a visit, in (0, 1)."""
    candidates: int = 16
    """Actions that the limit tries besides the proposal, the middle and the corners, >= 1."""
    starts: int = 200
    """Episodes of each comparison, >= 1."""
    steps: int = 1_000
    """Steps of such an episode, >= 1."""
    seed: int = 0
    """Of their starts, >= 0."""
    json: bool = False
    """Print JSON."""


DEFAULTS = EvaluateFBSettings()

_OF_THE_GUARD = ("limit", "candidates", "starts", "steps", "seed")


def run(settings: EvaluateFBSettings) -> int:
    """Print the scores of the last and of the best evaluation beside reference levels."""
    if settings.folder == Path():
        raise ConfigError("folder", "name the folder of a run of: safectl train fb")
    if settings.guard == "visits":
        return _compare(settings)
    for name in _OF_THE_GUARD:
        if getattr(settings, name) != getattr(DEFAULTS, name):
            problem = "counts only with --guard visits; add that, or leave this out"
            raise ConfigError(f"--{name}", problem)
    found = report(settings.folder)
    if settings.json:
        sys.stdout.write(json.dumps(scores_of(found), indent=2) + "\n")
    else:
        sys.stdout.write(format_report(found) + "\n")
    return 0


def _compare(settings: EvaluateFBSettings) -> int:
    for name in ("starts", "steps"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"--{name}", "at least 1")
    columns = (TextColumn("{task.percentage:3.0f} %"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("compare", total=steps_of(settings.starts, settings.steps))
        found = compare_guarded(
            settings.folder,
            limit=settings.limit,
            candidates=settings.candidates,
            episodes=settings.starts,
            steps=settings.steps,
            seed=settings.seed,
            progress=lambda done: bar.update(task, completed=done),
        )
    picture = settings.folder / "visits.png"
    plot_compared(found, picture)
    rows = found.figures()
    if settings.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return 0
    names = list(rows["plain"])
    sys.stdout.write(" " * 10 + "".join(f"{name:>16s}" for name in names) + "\n")
    for label, row in rows.items():
        sys.stdout.write(f"{label:10s}" + "".join(f"{row[name]:16.3f}" for name in names) + "\n")
    sys.stdout.write(f"{picture}\n")
    return 0

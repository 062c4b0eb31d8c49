"""`safectl visits`: how often a forward-backward policy will visit an unsafe set, calibrated."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from safectl.errors import ConfigError
from safectl_agents.fb import VISITS
from safectl_agents.fb.visits import Measured, VisitsConfig, figures_of, measure_visits, parts_of


@dataclass(frozen=True, slots=True)
class VisitsSettings:
    """Which visits, of which run."""

    folder: Path = Path()
    """Folder of a run of `safectl train fb` with method `fb`; also the first word."""
    visits: Annotated[VisitsConfig, tyro.conf.arg(name="")] = field(default_factory=VisitsConfig)
    """The visits; a table of that name in a TOML file."""
    data: Path | None = None
    """Folder of the episodes it was trained on; the one that the run names without."""
    json: bool = False
    """Print JSON."""


DEFAULTS = VisitsSettings()

_WRONG_MASS = (
    "the mass of a right model is 1: this one is wrong in scale, so its C_U may order actions\n"
    "wrongly; the table holds for starts like those of the rollouts. Train longer or more slowly\n"
)


def run(settings: VisitsSettings) -> int:
    """Measure, write `visits.safetensors` into the folder of the run, print the figures."""
    folder, config = settings.folder, settings.visits
    if folder == Path():
        raise ConfigError("folder", "name the folder of a run of: safectl train fb")
    columns = (
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} candidates and steps of all rollouts"),
        BarColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("visits", total=parts_of(config))
        measured = measure_visits(
            config, folder, data=settings.data, progress=lambda n: bar.update(task, completed=n)
        )
    if settings.json:
        facts = {"file": str(folder / VISITS), **figures_of(measured)}
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    else:
        sys.stdout.write(_text(config, measured))
        sys.stdout.write(f"{folder / VISITS}\nnext: safectl evaluate fb {folder} --guard visits\n")
    return 0


def _text(config: VisitsConfig, measured: Measured) -> str:
    scores, table, lines = measured.scores, measured.table, ""
    if (bent := measured.constrained) is not None:
        kept = "keeps" if bent.is_within else "CANNOT keep"
        lines = (
            f"the task {kept} the budget {config.budget:g}: predicted occupancy "
            f"{bent.asked_occupancy:.3g} -> {bent.occupancy:.3g}, "
            f"value {bent.asked_value:.3g} -> {bent.value:.3g}\n"
        )
    if (chosen := measured.chosen) is not None:
        lines += (
            f"of {chosen.tried} task vectors the best arrives without a visit in "
            f"{chosen.safe_success:.0%} of its rollouts, the first in "
            f"{chosen.asked_safe_success:.0%}\n"
        )
    return lines + (
        f"{config.calibration} rollouts of {config.steps} steps made the table, "
        f"{scores.rollouts} others judge it: {scores.visits:.1%} visited; "
        f"{measured.started_near:.0%} began near the disc\n"
        f"C_U up to           {_cells([*table.edges.tolist(), float('inf')])}\n"
        f"share that visited  {_cells(table.probability.tolist())}\n"
        f"bound (95 %)        {_cells(table.upper.tolist())}\n"
        f"calibration error {scores.ece:.3f}, Brier skill {scores.skill:.2f}, "
        f"bound covers {scores.coverage:.1%}, "
        f"alarm at C_U {table.alarm:.3g} misses {scores.missed:.1%} of visits, "
        f"impossible C_U {measured.impossible:.1%}, mass {measured.mass:.2f}\n"
        + ("" if 0.5 <= measured.mass <= 2.0 else _WRONG_MASS)
    )


def _cells(values: list[float]) -> str:
    return "".join(f"{value:8.3f}" for value in values)

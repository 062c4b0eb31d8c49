"""Tasks x methods x seeds: every seed a process of its own, finished ones are never repeated."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from safectl.errors import FileFormatError
from safectl_agents.acs import curve
from safectl_agents.acs.report import require_alike
from safectl_agents.acs.seed_run import RunSettings, check_settings, is_finished, run_seed
from safectl_agents.pool import Work, run_side_by_side


@dataclass(frozen=True, slots=True)
class Run:
    """One seed and its folder."""

    settings: RunSettings
    folder: Path


def plan(
    protocol: RunSettings,
    folder: Path,
    *,
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
) -> list[Run]:
    """List every seed once; methods vary fastest, so that comparisons are complete early.

    Args:
        protocol: What all seeds share; its task, method and seed are replaced.
        folder: Of the experiment; a seed lies in `<task>/<method>/seed-<n>`.
        tasks: Names of tasks.
        methods: Names of methods.
        seeds: Seeds.

    Raises:
        UnknownNameError: If a task or a method does not exist.
        RangeError: If a setting does not fit.
    """
    return [
        Run(
            replace(protocol, task=task, method=method, seed=seed),
            folder / task / method / f"seed-{seed}",
        )
        for task in dict.fromkeys(tasks)
        for seed in dict.fromkeys(seeds)
        for method in dict.fromkeys(methods)
    ]


def run_all(runs: Sequence[Run], *, jobs: int, command: str, console: Console) -> None:
    """Train what is not finished, `jobs` seeds at a time, with a bar per seed.

    Raises:
        ConfigError: If a folder holds a seed with other settings; nothing is trained.
        FileFormatError: If seeds, also finished ones, could not stand in one table; as well.
        SafectlError: The first error of a seed; what runs beside it is finished, nothing is begun.
    """
    for run in runs:
        check_settings(run.settings, run.folder)
    for place in dict.fromkeys(run.folder.parents[1] for run in runs):
        ours = [run for run in runs if run.folder.parents[1] == place]
        require_alike(place, {run.folder: asdict(run.settings) for run in ours})
    works = [
        Work(
            _label(run),
            run.settings.steps,
            partial(run_seed, run.settings, run.folder, command=command),
            partial(_standing, run.folder),
        )
        for run in runs
        if not is_finished(run.folder)
    ]
    run_side_by_side(works, jobs=jobs, console=console)


def _label(run: Run) -> str:
    settings = run.settings
    return f"{settings.task} {settings.method} {settings.seed}"


def _standing(folder: Path) -> tuple[int, str]:
    try:
        rows = curve.read(folder / "curve.csv")
    except FileFormatError:  # not there yet, or its last row is being written
        return 0, ""
    if not rows:
        return 0, ""
    scores = rows[-1].scores
    return rows[-1].step, f"return {scores.return_mean:.1f}  cost {scores.cost_mean:.1f}"

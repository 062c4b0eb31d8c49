"""Tasks x methods x seeds: every seed a process of its own, finished ones are never repeated."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from safectl_agents.acs import curve
from safectl_agents.acs.seed_run import RunSettings, check_settings, is_finished, run_seed

_REFRESH_S = 2.0


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
    """List every seed; methods vary fastest, so that comparisons are complete early.

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
        for task in tasks
        for seed in seeds
        for method in methods
    ]


def run_all(runs: Sequence[Run], *, jobs: int, command: str, console: Console) -> None:
    """Train what is not finished, `jobs` seeds at a time, with a bar per seed.

    Raises:
        ConfigError: If a folder holds a seed with other settings; nothing is trained.
        SafectlError: The first error of a seed; what runs beside it is finished, nothing is begun.
    """
    for run in runs:
        check_settings(run.settings, run.folder)
    pending = [run for run in runs if not is_finished(run.folder)]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=end_with_parent
        ) as pool,
    ):
        bars = {
            pool.submit(run_seed, run.settings, run.folder, command=command): (
                run,
                progress.add_task(_label(run), total=run.settings.steps, status=""),
            )
            for run in pending
        }
        open_runs: set[Future[None]] = set(bars)
        try:
            while open_runs:
                done, open_runs = wait(open_runs, _REFRESH_S, return_when=FIRST_COMPLETED)
                for run, bar in bars.values():
                    step, status = _standing(run.folder)
                    progress.update(bar, completed=step, status=status)
                for future in done:
                    future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this process when the one that started it is killed, so that a seed has one writer."""
    parent = parent_process()
    assert parent is not None, "this runs in a pool"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _label(run: Run) -> str:
    settings = run.settings
    return f"{settings.task} {settings.method} {settings.seed}"


def _standing(folder: Path) -> tuple[int, str]:
    path = folder / "curve.csv"
    rows = curve.read(path) if path.exists() else []
    if not rows:
        return 0, ""
    scores = rows[-1].scores
    return rows[-1].step, f"return {scores.return_mean:.1f}  cost {scores.cost_mean:.1f}"

"""Methods x seeds on one data set: every seed a process of its own, finished ones stay.

A seed lies in `<domain>/<method>/seed-<n>`: what `safectl_agents.fb.loop` writes, and at the end
`result.json` with scores of the last and of the best evaluation, machine, versions and command.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from safectl.config import to_mapping
from safectl.errors import FileFormatError
from safectl.files import read_json, write_json
from safectl_agents.bench.benchmark import describe_machine
from safectl_agents.fb.episodes import digest_of_data, episode_paths
from safectl_agents.fb.methods import find_method
from safectl_agents.fb.report import Evaluations, read_evaluations, read_log
from safectl_agents.fb.results import RESULT, read_results, require_alike
from safectl_agents.fb.settings import FBConfig
from safectl_agents.fb.train import check_run, train_as
from safectl_agents.pool import Work, run_side_by_side

_VERSION = 1
_ADVICE = "delete this file and run the seed again"


@dataclass(frozen=True, slots=True)
class Run:
    """One seed of one method, its data and its folder."""

    method: str
    config: FBConfig
    data: Path
    folder: Path


def plan(
    protocol: FBConfig, data: Path, folder: Path, *, methods: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    """List every seed; methods vary fastest, so that comparisons are complete early.

    Args:
        protocol: What all share; its seed and its variant are replaced.
        data: Folder of episodes.
        folder: Of the experiment.
        methods: Names of methods; one that is named twice is trained once.
        seeds: Seeds, likewise.

    Raises:
        UnknownNameError: If a method does not exist.
        ConfigError: If a setting is not read by a method.
    """
    return [
        Run(
            method,
            find_method(method).configure(replace(protocol, seed=seed)),
            data,
            folder / protocol.domain / method / f"seed-{seed}",
        )
        for seed in dict.fromkeys(seeds)
        for method in dict.fromkeys(methods)
    ]


def run_all(runs: Sequence[Run], *, jobs: int, command: str, console: Console) -> None:
    """Train what is not finished, `jobs` seeds at a time, with a bar per seed.

    Raises:
        ConfigError: If a folder holds a seed with other settings; nothing is trained.
        FileFormatError: If a finished seed beside them, or one to be trained, is unlike the others
            in what makes them comparable; nothing is trained.
        SafectlError: The first error of a seed; what runs beside it is finished, nothing is begun.
    """
    for run in runs:
        check_run(find_method(run.method).kind, run.config, run.data, run.folder)
    waiting = [run for run in runs if not is_finished(run)]
    if waiting:
        finished = read_results(waiting[0].folder.parents[1])
        require_alike(finished | {run.folder: _facts_of(run) for run in waiting})
    works = [
        Work(
            f"{run.config.domain} {run.method} {run.config.seed}",
            run.config.steps,
            partial(run_seed, run, command=command),
            partial(_standing, run.folder),
        )
        for run in waiting
    ]
    run_side_by_side(works, jobs=jobs, console=console)


def is_finished(run: Run) -> bool:
    """Return whether a seed has been trained for at least the steps that are asked for.

    Raises:
        FileFormatError: If its result is damaged.
    """
    path = run.folder / RESULT
    if not path.exists():
        return False
    result = read_json(path, advice=_ADVICE)
    if "last" not in result:
        raise FileFormatError(path, "is no result", _ADVICE)
    return int(result["last"]["step"]) >= run.config.steps


def run_seed(run: Run, *, command: str) -> None:
    """Train one seed to its end, from its last checkpoint if there is one, and write its result.

    Args:
        run: What to train.
        command: How the experiment was started, for the record.

    Raises:
        SafectlError: As `train`.
    """
    method = find_method(run.method)
    began, spent = time.monotonic(), time.process_time()
    train_as(method.kind, method.make, run.config, run.data, run.folder)
    found = read_evaluations(run.folder)
    best = int(found.scores.mean(1).argmax())
    packages = ("torch", "dm_control", "mujoco", "numpy")
    write_json(
        run.folder / RESULT,
        {
            "version": _VERSION,
            "method": run.method,
            **_facts_of(run),
            "machine": describe_machine(),
            "versions": {name: version(name) for name in packages},
            "command": command,
            "last": _scores(found, -1),
            "best": _scores(found, best),
            "seconds_of_the_last_start": round(time.monotonic() - began, 1),
            "processor_seconds_of_the_last_start": round(time.process_time() - spent, 1),
        },
    )


def _facts_of(run: Run) -> dict[str, object]:
    """Return what makes a result comparable with others."""
    return {
        "config": to_mapping(run.config),
        "episodes_of_the_data": len(episode_paths(run.data)),
        "data_sha256": digest_of_data(run.data),
    }


def _scores(found: Evaluations, row: int) -> dict[str, object]:
    scores = map(float, found.scores[row])
    return {"step": int(found.steps[row]), "scores": dict(zip(found.tasks, scores, strict=True))}


def _standing(folder: Path) -> tuple[int, str]:
    """Return the updates done and the mean score of the last evaluation; 0 and "" where unknown.

    Only a bar is made of it, so a log that is damaged or half written raises nothing.
    """
    try:
        step = int(read_log(folder / "updates.csv")[1][-1, 0])
    except FileFormatError:
        return 0, ""
    try:
        return step, f"score {read_evaluations(folder).scores[-1].mean():.1f}"
    except FileFormatError:
        return step, ""

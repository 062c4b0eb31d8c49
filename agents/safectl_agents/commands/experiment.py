"""`safectl bench acs`: train and compare methods of safe reinforcement learning."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from safectl.errors import RangeError
from safectl_agents.acs.experiment import plan, run_all
from safectl_agents.acs.methods import METHODS
from safectl_agents.acs.report import report
from safectl_agents.acs.seed_run import RunSettings
from safectl_agents.acs.tasks import TASKS, find_task


@dataclass(frozen=True, slots=True)
class ExperimentSettings:
    """What to compare. Run the same command again to go on after a stop."""

    task: tuple[str, ...] = ("speed-limit",)
    """Tasks; `--list` names them."""
    method: tuple[str, ...] = ("acs",)
    """Methods; `--list` names them, `all` is all of them."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""
    steps: int | None = None
    """Environment steps per seed; the task's without."""
    folder: Path = Path("runs/acs")
    """Where results go, `<task>/<method>/seed-<n>`."""
    jobs: int = 1
    """Seeds trained at the same time, each in a process of its own."""
    evaluate_every: int = 5_000
    """Steps between two evaluations."""
    episodes: int = 10
    """Episodes per evaluation."""
    checkpoint_every: int = 25_000
    """Steps between two checkpoints, a multiple of `evaluate_every`."""
    eps: float = 0.1
    """Tolerance; the Lagrangian methods on PPO and TRPO aim at one violation per episode."""
    warmup_ratio: float | None = None
    """Share of the steps before actions are corrected; the task's without. This and the next three
    concern TD3 and SAC: PPO and TRPO have their own schedule and rollouts."""
    train_every: int = 1
    """Environment steps per round of updates."""
    updates: int = 1
    """Gradient steps per round."""
    policy_delay: int = 2
    """Critic updates per actor update of TD3."""
    hidden: int | None = None
    """Units of each of the two hidden layers of TD3 and SAC; the task's networks without."""
    threads: int = 1
    """Threads of torch per process."""
    critic_from: str = ""
    """Folder of a finished seed of the same method whose learned layer is adopted (a safetensors
    file, nothing is unpickled), to correct from step 0 and to learn no more."""
    list: bool = False
    """Name tasks and methods; train nothing."""
    json: bool = False
    """Print the folders of the results as JSON."""


DEFAULTS = ExperimentSettings()


def run(settings: ExperimentSettings) -> int:
    """Train what is missing, then write and print the tables."""
    if settings.list:
        _list()
        return 0
    if settings.jobs < 1 or not settings.seeds:
        value = (settings.jobs, settings.seeds)
        raise RangeError("jobs, seeds", value=value, expected="at least one of each")
    methods = tuple(METHODS) if settings.method == ("all",) else settings.method
    runs = [
        run
        for task in settings.task
        for run in plan(
            _protocol(settings, task),
            settings.folder,
            tasks=[task],
            methods=methods,
            seeds=settings.seeds,
        )
    ]
    command = "safectl " + shlex.join(sys.argv[1:])
    console = Console(stderr=True)
    run_all(runs, jobs=settings.jobs, command=command, console=console)
    tables = {task: report(settings.folder, task) for task in settings.task}
    if settings.json:
        folders = {task: str(path.parent) for task, path in tables.items() if path is not None}
        sys.stdout.write(json.dumps(folders) + "\n")
        return 0
    for task, path in tables.items():
        if path is not None:
            Console().print(Markdown(f"## {task}\n\n" + path.read_text(encoding="utf-8")))
            console.print(f"table, curves and every seed: {path.parent}", highlight=False)
    return 0


def _protocol(settings: ExperimentSettings, task: str) -> RunSettings:
    return RunSettings(
        task=task,
        method=next(iter(METHODS)),
        steps=find_task(task).steps if settings.steps is None else settings.steps,
        seed=0,
        evaluate_every=settings.evaluate_every,
        episodes=settings.episodes,
        checkpoint_every=settings.checkpoint_every,
        eps=settings.eps,
        warmup_ratio=settings.warmup_ratio,
        train_every=settings.train_every,
        updates=settings.updates,
        policy_delay=settings.policy_delay,
        hidden=settings.hidden,
        threads=settings.threads,
        critic_from=settings.critic_from,
    )


def _list() -> None:
    console = Console()
    for name, task in TASKS.items():
        console.print(f"task    {name:22s} {task.env}, {task.steps:,} steps", highlight=False)
    for name, method in METHODS.items():
        console.print(f"method  {name:22s} {method.summary}", highlight=False)

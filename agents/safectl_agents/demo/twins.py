"""Train and evaluate two agents side by side, one process each, with live progress."""

import multiprocessing
import queue
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from stable_baselines3.common.callbacks import BaseCallback

from safectl.errors import SafectlError
from safectl.files import write_json
from safectl_agents.animation import Frame, record
from safectl_agents.evaluate import Env, Evaluation, episode_seed, evaluate
from safectl_agents.guards import (
    GuardName,
    calibrate_run,
    guard_factory,
    guarded_env,
    guarded_envs,
    save_guard_name,
)
from safectl_agents.run_folder import load_trained
from safectl_agents.sb3 import SB3Policy
from safectl_agents.settings import TrainConfig
from safectl_agents.train import train

_REPORT_S = 0.3
_POLL_S = 0.2
_WINDOW = 10


@dataclass(frozen=True, slots=True)
class Twin:
    """One agent of the comparison.

    Attributes:
        name: How people call it.
        config: What it is trained on.
        guard: Which guard stands before the environment, in training and after.
        folder: Folder of the run.
    """

    name: str
    config: TrainConfig
    guard: GuardName
    folder: Path


@dataclass(frozen=True, slots=True)
class Trial:
    """What a twin did: its evaluation, an episode to watch, and what training cost.

    Attributes:
        evaluation: Over fresh episodes, with the deterministic policy.
        alone: The same policy without its guard; None where it has none.
        frames: One drawn episode.
        violations: Steps with a cost in training and calibration, from step 0.
        seconds: Time of training and calibration [s].
    """

    evaluation: Evaluation
    alone: Evaluation | None
    frames: list[Frame]
    violations: int
    seconds: float


class TwinFailed(SafectlError):
    """A training process ended with an error."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        super().__init__(f"the agent {name!r} failed:\n{text}")


def run_twins(
    twins: Sequence[Twin], console: Console, *, episodes: int, frames: int
) -> dict[str, Trial]:
    """Train, evaluate and draw every twin, each in a process of its own.

    Args:
        twins: The agents.
        console: Where progress is drawn.
        episodes: Episodes of the evaluation.
        frames: Pictures of the drawn episode, two steps apart.

    Raises:
        TwinFailed: If a process ends with an error; the others are stopped.
    """
    context = multiprocessing.get_context("spawn")
    messages: Queue[tuple[str, str, Any]] = context.Queue()
    processes = [
        context.Process(target=_run, args=(twin, episodes, frames, messages), daemon=True)
        for twin in twins
    ]
    for process in processes:
        process.start()
    try:
        return _watch(twins, processes, messages, console)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _watch(
    twins: Sequence[Twin],
    processes: Sequence[SpawnProcess],
    messages: "Queue[tuple[str, str, Any]]",
    console: Console,
) -> dict[str, Trial]:
    done: dict[str, Trial] = {}
    columns = (TextColumn("{task.description:>12s}"), BarColumn(30), TextColumn("{task.fields[s]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        tasks: dict[str, TaskID] = {
            twin.name: progress.add_task(twin.name, total=twin.config.steps, s="starting")
            for twin in twins
        }
        while len(done) < len(twins):
            try:
                kind, name, value = messages.get(timeout=_POLL_S)
            except queue.Empty:
                for twin, process in zip(twins, processes, strict=True):
                    if twin.name not in done and process.exitcode is not None:
                        text = f"its process ended with exit code {process.exitcode}"
                        raise TwinFailed(twin.name, text) from None
                continue
            if kind == "error":
                raise TwinFailed(name, value)
            if kind == "steps":
                steps, text = value
                progress.update(tasks[name], completed=steps, s=text)
            if kind == "phase":
                progress.update(tasks[name], s=value)
            if kind == "done":
                progress.stop_task(tasks[name])
                done[name] = value
    return {twin.name: done[twin.name] for twin in twins}


def _run(twin: Twin, episodes: int, frames: int, messages: "Queue[tuple[str, str, Any]]") -> None:
    """Do everything for one twin, in its own process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the parent's, which ends us
    try:
        started = time.monotonic()
        guard = guard_factory(twin.guard, seed=twin.config.seed)
        report = _Report(twin.name, messages)
        save_guard_name(twin.guard, twin.folder)
        result = train(twin.config, folder=twin.folder, guard=guard, callbacks=[report])
        violations = result.violations
        if guard is not None:
            messages.put(("phase", twin.name, "calibrating the guard on the trained policy"))
            violations += calibrate_run(twin.folder).violations
        seconds = time.monotonic() - started
        messages.put(("phase", twin.name, f"evaluating over {episodes} episodes"))
        trial = _try(twin, load_trained(twin.folder), episodes, frames, violations, seconds)
        messages.put(("phase", twin.name, _summary(trial)))
        messages.put(("done", twin.name, trial))
    except SafectlError as error:
        messages.put(("error", twin.name, str(error)))
    except Exception:  # noqa: BLE001  the parent must hear of it, whatever it is
        messages.put(("error", twin.name, traceback.format_exc()))


def _try(
    twin: Twin, policy: SB3Policy, episodes: int, frames: int, violations: int, seconds: float
) -> Trial:
    seed = twin.config.seed
    envs = guarded_envs(twin.guard, twin.config.env, twin.folder, seed=seed)
    evaluation = evaluate(policy, envs, episodes=episodes, seed=seed)
    write_json(twin.folder / "evaluation.json", evaluation.to_json())
    alone = None
    if twin.guard != "none":
        free = guarded_envs("none", twin.config.env, twin.folder, seed=seed)
        alone = evaluate(policy, free, episodes=episodes, seed=seed)
    drawn = record(
        policy,
        lambda: _env(twin, render=True),
        seed=episode_seed(seed, 0),
        every=2,
        limit=2 * frames,
    )
    return Trial(evaluation, alone, drawn, violations, seconds)


def _env(twin: Twin, *, render: bool = False) -> Env:
    config = twin.config
    return guarded_env(twin.guard, config.env, twin.folder, seed=config.seed, render=render)


def _summary(trial: Trial) -> str:
    evaluation = trial.evaluation
    return f"return {evaluation.reward.estimate:.0f}  cost {evaluation.cost.estimate:.1f}"


class _Report(BaseCallback):
    """Sends steps, return and cost of the last episodes to the parent."""

    def __init__(self, name: str, messages: "Queue[tuple[str, str, Any]]") -> None:
        super().__init__()
        self._name, self._messages = name, messages
        self._episodes: list[tuple[float, float]] = []
        self._sent = 0.0

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._episodes.append((info["episode"]["r"], info["episode"]["cost"]))
        now = time.monotonic()
        if now - self._sent >= _REPORT_S:
            self._sent = now
            text = ""
            if self._episodes:
                mean = np.mean(self._episodes[-_WINDOW:], axis=0)
                text = f"return {mean[0]:6.0f}  cost {mean[1]:6.1f}"
            self._messages.put(("steps", self._name, (self.num_timesteps, text)))
        return True

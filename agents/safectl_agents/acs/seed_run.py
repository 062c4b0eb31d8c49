"""One seed of one method on one task: train, evaluate, keep checkpoints, go on after a kill.

A run is a sequence of segments of `evaluate_every` steps. Each starts with a newly built
environment and with generators seeded from (seed, number of the segment), so what follows a
checkpoint depends on the checkpoint alone: on a CPU a killed and resumed run gives the same curve
and weights as one that was not.

Folder: `settings.json`, `curve.csv`, `checkpoints/`, and at the end `model.zip`,
`lower.safetensors` of methods whose lower layer learns, and `result.json`.
"""

import shutil
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from safectl.errors import ConfigError, RangeError
from safectl.files import read_json, write_json
from safectl.seed import derive
from safectl_agents.acs import curve
from safectl_agents.acs.collect import Tally
from safectl_agents.acs.evaluation import Env, evaluate
from safectl_agents.acs.lower import Lower
from safectl_agents.acs.methods import MethodContext, find_method
from safectl_agents.acs.pretrain import adopt_lower, save_lower
from safectl_agents.acs.tasks import find_task
from safectl_agents.bench.benchmark import describe_machine
from safectl_agents.episodes import rewind
from safectl_agents.models import make_env
from safectl_agents.one_writer import one_writer
from safectl_agents.training_state import (
    Counters,
    checkpoints,
    discard_drafts,
    load_counters,
    load_model,
    save_state,
)

RUN_VERSION = 1
_SEED_BITS = 31
_BARE_EVERY = 5  # evaluations between two without the safeguard
_FINAL = 10  # evaluations that count at the end, but at most the last fifth of them
_BUFFER = 1_000_000
_COUNTS = (
    "steps", "evaluate_every", "episodes", "train_every", "updates", "policy_delay", "threads",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunSettings:
    """One seed.

    Raises:
        RangeError: If a number lies outside its range.
        UnknownNameError: If there is no such task or method.
    """

    task: str
    """Name of the task."""
    method: str
    """Name of the method."""
    steps: int
    """Environment steps, >= 1."""
    seed: int
    """Of everything random, >= 0."""
    evaluate_every: int = 5_000
    """Steps between two evaluations, >= 1."""
    episodes: int = 10
    """Episodes per evaluation, >= 1."""
    checkpoint_every: int = 25_000
    """Steps between two checkpoints; whole evaluations."""
    eps: float = 0.1
    """Tolerance, > 0; the Lagrangian methods on PPO and TRPO aim at one violation per episode."""
    warmup_ratio: float | None = None
    """Share of the steps before actions are corrected, in [0, 1]; None for the task's. This and the
    next three concern TD3 and SAC: PPO and TRPO have their own schedule and rollouts."""
    train_every: int = 1
    """Environment steps per round of updates, >= 1."""
    updates: int = 1
    """Gradient steps per round, >= 1."""
    policy_delay: int = 2
    """Critic updates per actor update of TD3, >= 1."""
    hidden: int | None = None
    """Units of each of the two hidden layers of TD3 and SAC, >= 1; None for the task's networks."""
    threads: int = 1
    """Threads of torch, >= 1."""
    critic_from: str = ""
    """Folder of a finished seed whose lower layer is adopted as it is; it corrects from step 0 and
    learns no more."""

    def __post_init__(self) -> None:
        find_task(self.task)
        find_method(self.method)
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise RangeError(name, value=getattr(self, name), expected="an integer >= 1")
        if self.hidden is not None and self.hidden < 1:
            raise RangeError("hidden", value=self.hidden, expected="an integer >= 1, or None")
        if self.seed < 0:
            raise RangeError("seed", value=self.seed, expected="an integer >= 0")
        if not self.eps > 0.0:
            raise RangeError("eps", value=self.eps, expected="a number > 0")
        if self.warmup_ratio is not None and not 0.0 <= self.warmup_ratio <= 1.0:
            expected = "a number in [0, 1], or None"
            raise RangeError("warmup_ratio", value=self.warmup_ratio, expected=expected)
        if self.checkpoint_every < 1 or self.checkpoint_every % self.evaluate_every:
            expected = f"a multiple of evaluate_every = {self.evaluate_every}"
            raise RangeError("checkpoint_every", value=self.checkpoint_every, expected=expected)

    @property
    def guard_from(self) -> int:
        """Step from which actions are corrected."""
        if self.critic_from:
            return 0
        ratio = self.warmup_ratio
        share = find_task(self.task).warmup_ratio if ratio is None else ratio
        return round(share * self.steps)


class Trainer(Protocol):
    """What a run asks of a model beside the library's `BaseAlgorithm`."""

    @property
    def tally(self) -> Tally:
        """Counts of the training steps."""
        ...

    @property
    def lower(self) -> Lower:
        """The layer that corrects actions."""
        ...

    def begin_segment(self, seed: int) -> None:
        """Seed the generators that are the trainer's own; new episodes begin."""
        ...


def is_finished(folder: Path) -> bool:
    """Return whether a seed is done."""
    return (folder / "result.json").exists()


def check_settings(settings: RunSettings, folder: Path) -> None:
    """Refuse a folder that holds a seed with other settings, finished or not.

    Raises:
        ConfigError: If it does.
        FileFormatError: If its settings cannot be read.
    """
    path = folder / "settings.json"
    if not path.exists():
        return
    stored = read_json(path, advice="delete the folder and start again")
    for name, value in asdict(settings).items():
        if stored.get(name) != value:
            problem = f"{name} was {stored.get(name)!r} when the run began, now it is {value!r}"
            raise ConfigError(str(folder), f"{problem}; name another folder")


def run_seed(settings: RunSettings, folder: Path, *, command: str) -> None:
    """Train one seed to its end, from its last checkpoint if there is one.

    Args:
        settings: What to train.
        folder: Of this seed.
        command: How the experiment was started, for the record.

    Raises:
        ConfigError: If the folder holds a run with other settings, or another command writes there.
        FileFormatError: If the last checkpoint cannot be read, or the curve is one of a version
            with other columns.
        StorageError: If a file cannot be written.
    """
    with one_writer(folder):
        check_settings(settings, folder)
        if not is_finished(folder):
            _train_seed(settings, folder, command)


def _train_seed(settings: RunSettings, folder: Path, command: str) -> None:
    torch.set_num_threads(settings.threads)
    write_json(folder / "settings.json", asdict(settings))
    discard_drafts(folder / "checkpoints")
    found = checkpoints(folder / "checkpoints")
    counters = load_counters(found[-1]) if found else Counters()
    rewind(folder / "curve.csv", counters.episodes_bytes)
    curve.require_columns(folder / "curve.csv")
    run = _Run(
        settings, folder, [make_env(find_task(settings.task).env) for _ in range(settings.episodes)]
    )
    model: BaseAlgorithm | None = None
    while counters.step < settings.steps:
        model, counters = run.segment(model, counters)
    if model is None:  # killed between the last checkpoint and the result
        model = run.model(run.train_env(), counters)
    _finish(settings, folder, model, command)


@dataclass(frozen=True, slots=True)
class _Run:
    settings: RunSettings
    folder: Path
    evaluation_envs: list[Env]

    def train_env(self) -> DummyVecEnv:
        """Return a new environment to train in."""
        return DummyVecEnv([lambda: make_env(find_task(self.settings.task).env)])

    def model(self, env: DummyVecEnv, counters: Counters) -> BaseAlgorithm:
        """Return the untrained model, or that of the last checkpoint."""
        model = make_model(self.settings, env)
        if counters.segment:
            load_model(checkpoints(self.folder / "checkpoints")[-1], model, counters)
        return model

    def segment(
        self, model: BaseAlgorithm | None, counters: Counters
    ) -> tuple[BaseAlgorithm, Counters]:
        """Train up to the next evaluation, evaluate, and save a checkpoint where one is due."""
        settings = self.settings
        seed = derive(settings.seed, f"segment {counters.segment}") >> (63 - _SEED_BITS)
        env = self.train_env()
        set_random_seed(seed)
        if model is None:
            model = self.model(env, counters)
        else:
            model.set_env(env)
        trainer = cast(Trainer, model)
        env.seed(seed)  # after the library's constructor, which seeds it otherwise
        model.action_space.seed(seed)
        set_random_seed(seed)
        trainer.begin_segment(seed)
        trainer.tally.violations = counters.violations
        target = min(settings.steps, counters.step + settings.evaluate_every)
        began = time.monotonic()
        model.learn(target - counters.step, reset_num_timesteps=False)
        speed = (model.num_timesteps - counters.step) / (time.monotonic() - began)
        env.close()
        size = curve.append(self.folder / "curve.csv", self._row(model, counters, speed))
        after = Counters(
            step=model.num_timesteps,
            segment=counters.segment + 1,
            updates=model._n_updates,
            episodes=model._episode_num,
            violations=trainer.tally.violations,
            episodes_bytes=size,
        )
        trainer.tally.reset()
        every = settings.checkpoint_every
        if after.step // every > counters.step // every or after.step >= settings.steps:
            save_state(self.folder / "checkpoints", model, after, keep=1)
        return model, after

    def _row(self, model: BaseAlgorithm, counters: Counters, speed: float) -> curve.Row:
        settings, tally = self.settings, cast(Trainer, model).tally
        began = time.monotonic()
        scores = evaluate(model, self.evaluation_envs, settings.seed, guarded=True)
        bare = (float("nan"), float("nan"))
        if counters.segment % _BARE_EVERY == _BARE_EVERY - 1:
            unguarded = evaluate(model, self.evaluation_envs, settings.seed, guarded=False)
            bare = (unguarded.return_mean, unguarded.cost_mean)
        steps = max(tally.steps, 1)
        return curve.Row(
            model.num_timesteps,
            scores,
            *bare,
            tally.violations,
            tally.corrected / steps,
            tally.iterations / steps,
            tally.residual / steps,
            tally.distance / steps,
            speed,
            time.monotonic() - began,
        )


def make_model(settings: RunSettings, env: DummyVecEnv) -> BaseAlgorithm:
    """Return the untrained model of a seed."""
    task = find_task(settings.task)
    options: dict[str, Any] = {
        "learning_starts": task.learning_starts,
        "buffer_size": min(_BUFFER, settings.steps),
        "train_freq": settings.train_every,
        "gradient_steps": settings.updates,
        "policy_delay": settings.policy_delay,
        "device": "cpu",
    }
    context = MethodContext(
        settings.seed,
        settings.guard_from,
        task.reward_penalty,
        settings.eps,
        task.hidden if settings.hidden is None else (settings.hidden,) * 2,
        task.learning,
        not settings.critic_from,
        options,
    )
    model = find_method(settings.method).make(env, context)
    if settings.critic_from:
        adopt_lower(model, settings.task, settings.method, Path(settings.critic_from))
    return model


def _finish(settings: RunSettings, folder: Path, model: BaseAlgorithm, command: str) -> None:
    rows = curve.read(folder / "curve.csv")
    model.save(folder / "model.zip")
    save_lower(model, folder)
    last = final_rows(rows)
    names = [name for name in curve.flat(last[0]) if name != "step"]
    packages = ("torch", "stable-baselines3", "gymnasium", "numpy")
    write_json(
        folder / "result.json",
        {
            "version": RUN_VERSION,
            "settings": asdict(settings),
            "machine": describe_machine(),
            "versions": {name: version(name) for name in packages},
            "command": command,
            "evaluations_averaged": len(last),
            "final": {name: _mean([curve.flat(row)[name] for row in last]) for name in names},
            "training_violations": rows[-1].training_violations,
            "training_cost_rate": rows[-1].training_violations / rows[-1].step,
            "steps_per_second": _speed(rows),
        },
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def final_rows(rows: list[curve.Row]) -> list[curve.Row]:
    """Return the evaluations that count at the end: the last ten, at most the last fifth."""
    return rows[-max(1, min(_FINAL, len(rows) // 5)) :]


def _speed(rows: list[curve.Row]) -> float:
    """Return training steps per second of training, without evaluations."""
    starts = [0, *(row.step for row in rows[:-1])]
    times = [
        (row.step - start) / row.steps_per_second for row, start in zip(rows, starts, strict=True)
    ]
    return rows[-1].step / sum(times)


def _mean(values: list[int | float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None

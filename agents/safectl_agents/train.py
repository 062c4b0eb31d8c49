"""Train stable-baselines3 algorithms through a safeguard, and go on where a run stopped.

A run is a sequence of segments of `checkpoint_every` steps. Each segment starts with newly built
environments and with random generators seeded from (seed, number of the segment), and ends with a
checkpoint. So what follows a checkpoint depends on the checkpoint alone, and on a CPU a run that
was killed and resumed gives the same bits as one that was not, for every environment whose
behaviour is a function of its construction and its reset seed. A run stopped by ctrl-C ends its
segment early; it goes on deterministically, but along another path than an uninterrupted one, and
its checkpoints say so in `interruptions`.

Folder of a run: `config.json`, `episodes.csv`, `tensorboard/`, `checkpoints/step-<steps>/`.
"""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from safectl.seed import derive
from safectl_agents import model_state
from safectl_agents.callbacks import SafetyCurves, StopOnInterrupt
from safectl_agents.models import GuardFactory, make_model, make_vec_env
from safectl_agents.run_folder import open_run
from safectl_agents.sb3 import SB3Policy
from safectl_agents.settings import TrainConfig
from safectl_agents.training_state import (
    Counters,
    checkpoints,
    load_model,
    load_policy,
    save_state,
)

_SEED_BITS = 31


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        folder: Folder of the run.
        checkpoint: Its last checkpoint.
        policy: The deterministic actor of that checkpoint.
        steps: Environment steps done.
        violations: Steps with a positive cost since step zero.
        steps_per_second: Speed of this call, training included; zero if nothing was left to do.
    """

    folder: Path
    checkpoint: Path
    policy: SB3Policy
    steps: int
    violations: int
    steps_per_second: float


def train(
    config: TrainConfig,
    *,
    folder: Path,
    guard: GuardFactory | None = None,
    callbacks: Sequence[BaseCallback] = (),
    resume: bool = False,
) -> TrainResult:
    """Train, or go on training, and save checkpoints on the way.

    Seeds and uses the global generators of `random`, NumPy and torch, because the library does.

    Args:
        config: What to train.
        folder: Folder of the run; new, unless `resume`.
        guard: How to make the safeguard, once per segment; None for none.
        callbacks: Called at every step, e.g. `ProgressBar`.
        resume: Whether to go on from the last checkpoint in `folder`; only `steps` may differ from
            the settings the run was started with.

    Raises:
        ConfigError: If the folder holds a run and `resume` is off, or the settings differ.
        FileFormatError: If the last checkpoint cannot be read.
        KeyboardInterrupt: After ctrl-C, once a checkpoint is saved; its text says how to go on.
        NonFiniteError: If a number of the environment or the network is NaN or infinite.
        StorageError: If a file cannot be written; earlier checkpoints are untouched.
        UnknownNameError: If no environment has the name.
    """
    run = _Run(config, folder, guard)
    counters = open_run(config, folder, resume=resume)
    first_step, began = counters.step, time.monotonic()
    model: BaseAlgorithm | None = None
    with _threads(config.threads), StopOnInterrupt() as stop:
        while counters.step < config.steps:
            model, counters = run.segment(model, counters, [*callbacks, stop])
            if stop.requested:
                raise KeyboardInterrupt(
                    f"stopped at step {counters.step} of {config.steps}; go on with: "
                    f"safectl train --resume {shlex.quote(str(folder))}"
                )
    elapsed_s = time.monotonic() - began
    if model is not None:
        model.logger.close()
    last = checkpoints(folder / "checkpoints")[-1]
    return TrainResult(
        folder,
        last,
        load_policy(last, config),
        counters.step,
        counters.violations,
        (counters.step - first_step) / elapsed_s,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    config: TrainConfig
    folder: Path
    guard: GuardFactory | None

    def segment(
        self, model: BaseAlgorithm | None, counters: Counters, callbacks: list[BaseCallback]
    ) -> tuple[BaseAlgorithm, Counters]:
        """Train up to the next checkpoint and save it."""
        config = self.config
        seed = derive(config.seed, f"segment {counters.segment}") >> (63 - _SEED_BITS)
        env, recorder = make_vec_env(
            config,
            self.guard,
            self.folder / "episodes.csv",
            step=counters.step,
            violations=counters.violations,
            seed=seed,
        )
        try:
            set_random_seed(seed)
            if model is None:
                model = self._model(env, counters)
            else:
                statistics = model_state.normaliser_state(model)
                old = model_state.learner_of(model)
                model.set_env(env)
                model_state.load_normaliser(model, statistics)
                new = model_state.learner_of(model)
                if old is not None and new is not None:
                    new.load_state(old.state())
            model.action_space.seed(seed)
            set_random_seed(seed)
            every = config.checkpoint_every
            target = min(config.steps, (counters.step // every + 1) * every)
            _learn(model, target, [SafetyCurves(counters.violations), *callbacks])
            is_early = model.num_timesteps < target
            after = Counters(
                step=model.num_timesteps,
                segment=counters.segment + 1,
                updates=model._n_updates,
                episodes=model._episode_num,
                violations=recorder.violations_total,
                episodes_bytes=recorder.finish(),
                interruptions=counters.interruptions + (model.num_timesteps,) * is_early,
            )
            save_state(self.folder / "checkpoints", model, after, keep=config.keep)
        finally:
            env.close()
        return model, after

    def _model(self, env: VecEnv, counters: Counters) -> BaseAlgorithm:
        """Build the model and fill it from the checkpoint that the counters came from."""
        model = make_model(self.config, env, guarded=self.guard is not None)
        model.set_logger(configure(str(self.folder / "tensorboard"), ["tensorboard"]))
        if counters.segment:
            load_model(checkpoints(self.folder / "checkpoints")[-1], model, counters)
        return model


def _learn(model: BaseAlgorithm, target: int, callbacks: list[BaseCallback]) -> None:
    """Train up to `target` steps in all; name the weights where the library stumbles over NaN."""
    try:
        model.learn(target - model.num_timesteps, callbacks, reset_num_timesteps=False)
    except ValueError:
        model_state.weights(model)
        raise


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

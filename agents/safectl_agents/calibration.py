"""Calibrate a learned guard on the policy that is deployed, not on the one that explored.

A margin is a quantile of errors on transitions like those of its data. Training data come from a
policy that explores; the deterministic policy repeats one gait, and where the model errs there, it
errs in every stride. So after training the deterministic policy runs behind its guard for a while,
the guard goes on learning, and its last margin is measured on those transitions.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from stable_baselines3.common.vec_env import DummyVecEnv

from safectl.files import new_file
from safectl.seed import derive
from safectl.types import Policy, Safeguard
from safectl_agents.guarded import GuardedVecEnv, Learner
from safectl_agents.models import make_env
from safectl_agents.run_folder import calibrated_path
from safectl_agents.settings import TrainConfig

_SEED_BITS = 31


class CalibrationRun(NamedTuple):
    """Steps driven and how many of them violated the constraint."""

    steps: int
    violations: int


def calibrate_guard(
    policy: Policy, guard: Safeguard, config: TrainConfig, folder: Path, *, steps: int
) -> CalibrationRun:
    """Drive a policy behind its guard, let the guard learn, and save what it learned.

    Args:
        policy: The deterministic policy of the run's last checkpoint.
        guard: Its guard; one that does not learn is left alone.
        config: Settings of the run.
        folder: Folder of the run.
        steps: Steps over all environments; several of the guard's intervals.

    Raises:
        StorageError: If the state cannot be written.
    """
    if not isinstance(guard, Learner):
        return CalibrationRun(0, 0)
    copies = DummyVecEnv([lambda: make_env(config.env) for _ in range(config.n_envs)])
    copies.seed(derive(config.seed, "calibration") >> (63 - _SEED_BITS))
    env = GuardedVecEnv(copies, guard)
    observation = env.reset()
    rounds, violations = steps // config.n_envs, 0
    for _ in range(rounds):
        with torch.no_grad():
            action = policy.act(torch.as_tensor(np.asarray(observation)).float())
        env.step_async(action.cpu().numpy())
        observation, _, _, infos = env.step_wait()
        violations += _violations(infos)
    env.close()
    with new_file(calibrated_path(folder)) as draft:
        draft.write_bytes(save(guard.state()))
    return CalibrationRun(rounds * config.n_envs, violations)


def _violations(infos: list[dict[str, Any]]) -> int:
    return sum(info.get("cost", 0.0) > 0.0 for info in infos)

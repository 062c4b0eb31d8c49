"""The learned speed guard of the velocity tasks."""

import hashlib
import json
import shutil

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import save

import safectl_envs
from safectl.errors import FileFormatError, UnknownNameError
from safectl.safeguards import Clip
from safectl.safeguards.online import OnlineOptions
from safectl.types import Safeguard
from safectl_agents.calibration import calibrate_guard
from safectl_agents.guarded import Learner
from safectl_agents.run_folder import is_calibrated, load_guard
from safectl_agents.settings import TrainConfig
from safectl_agents.speed_guard import SpeedGuard
from safectl_agents.training_state import STATE_VERSION
from safectl_envs.signals import spec_of

SMALL = OnlineOptions(
    hidden=(32,), warm_up=1500, interval=500, capacity=5000, first_steps=300, steps=50
)


def make(name):
    assert safectl_envs
    return gymnasium.make(name, disable_env_checker=True)


@pytest.mark.parametrize("name", ["HalfCheetah", "Hopper", "Walker2d", "Swimmer", "Ant"])
def test_it_learns_from_the_speed_that_costs(name):
    env = make(f"Safety{name}Velocity-v1")
    guard = SpeedGuard(env, seed=0, options=SMALL)
    assert isinstance(guard, Safeguard)
    assert isinstance(guard, Learner)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(20):
        action = env.action_space.sample()
        after, _, terminated, truncated, info = env.step(action)
        guard.learn(observation[None], action[None], [info])
        observation = env.reset()[0] if terminated or truncated else after
    stored = guard.state()["data.2"][:, 0]
    speed = info["x_velocity"]
    if guard.column is None:
        speed = np.hypot(speed, info["y_velocity"])
    assert stored[-1] == pytest.approx(speed, rel=1e-5)


def test_the_observed_speed_is_the_joint_velocity():
    env = make("SafetyHalfCheetahVelocity-v1")
    guard = SpeedGuard(env, seed=0, options=SMALL)
    assert guard.column == 8
    rows = torch.arange(34.0).reshape(2, 17)
    assert guard.speed(rows).tolist() == [[8.0], [25.0]]
    planar = SpeedGuard(make("SafetyAntVelocity-v1"), seed=0, options=SMALL)
    rows = torch.zeros(1, 27)
    rows[0, 13], rows[0, 14] = 3.0, 4.0
    assert planar.column is None
    assert planar.speed(rows).tolist() == [[5.0]]


@pytest.mark.slow
def test_it_fits_and_predicts_the_next_speed():
    env = make("SafetySwimmerVelocity-v1")
    guard = SpeedGuard(env, seed=0, options=SMALL)
    with pytest.raises(FileFormatError, match="has no model yet"):
        guard.require_layer()
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(2200):
        action = env.action_space.sample()
        after, _, terminated, truncated, info = env.step(action)
        guard.learn(observation[None], action[None], [info])
        observation = env.reset()[0] if terminated or truncated else after
    layer = guard.require_layer()
    spread = float(guard.state()["data.2"].std())
    assert float(layer.calibration.error[0]) < 0.5 * spread


@pytest.mark.parametrize(
    "name", ["SafetyPointGoal1-v0", "SafetyHumanoidVelocity-v1", "safectl/SpeedLimit-v0"]
)
def test_tasks_without_an_observed_speed_are_refused(name):
    with pytest.raises(UnknownNameError, match="SafetyHalfCheetahVelocity-v1"):
        SpeedGuard(make(name), seed=0)


class Push:
    """A policy that always does the same."""

    def act(self, observation):
        return torch.full((len(observation), 2), 0.9)


def write_checkpoint(folder, guard):
    """Write what calibration reads of a checkpoint: the learned guard and its digest."""
    folder.mkdir(parents=True)
    data = save(guard.state())
    (folder / "safeguard.safetensors").write_bytes(data)
    digests = {"safeguard.safetensors": hashlib.sha256(data).hexdigest()}
    (folder / "state.json").write_text(json.dumps({"version": STATE_VERSION, "sha256": digests}))


@pytest.mark.slow
def test_calibration_measures_the_margin_on_the_deployed_policy(tmp_path):
    config = TrainConfig(env="SafetySwimmerVelocity-v1", n_envs=4)
    guard = SpeedGuard(make(config.env), seed=0, options=SMALL)
    write_checkpoint(tmp_path / "checkpoints" / "step-0000000001", guard)
    assert not is_calibrated(tmp_path)
    done = calibrate_guard(Push(), guard, config, tmp_path, steps=3000)
    assert done.steps == 3000
    assert is_calibrated(tmp_path)
    again = SpeedGuard(make(config.env), seed=0, options=SMALL)
    load_guard(tmp_path, again)
    margins = [each.require_layer().calibration.margin for each in (guard, again)]
    assert torch.equal(*margins)
    actions = again.state()["data.1"]
    shutil.rmtree(tmp_path / "checkpoints")
    write_checkpoint(tmp_path / "checkpoints" / "step-0000000001", guard)
    assert not is_calibrated(tmp_path)  # the same step, but another checkpoint
    assert len(actions) == 3000
    assert (actions[: SMALL.warm_up] == 0.9).all()


def test_a_guard_that_does_not_learn_needs_no_calibration(tmp_path):
    config = TrainConfig(env="SafetySwimmerVelocity-v1", n_envs=2)
    clip = Clip(spec_of(make(config.env)))
    assert calibrate_guard(Push(), clip, config, tmp_path, steps=100).steps == 0
    assert not list(tmp_path.iterdir())

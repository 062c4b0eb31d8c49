"""A problem so small that failing to learn it is a bug."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import SyncVectorEnv

from safectl_agents.evaluate import evaluate
from safectl_agents.settings import PPOSettings, SACSettings, TD3Settings, TrainConfig
from safectl_agents.train import train


class Match(gym.Env):
    """One-step episodes: the action shall equal the observation; the reward is -(u - o)^2."""

    def __init__(self):
        self.observation_space = Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._target = self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32)
        return self._target, {}

    def step(self, action):
        reward = -float((action[0] - self._target[0]) ** 2)
        return self._target, reward, True, False, {"cost": 0.0}


@pytest.fixture(autouse=True)
def _registered():
    gym.register("test/Match-v0", Match)
    yield
    del gym.registry["test/Match-v0"]


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "steps"), [("ppo", 12_000), ("sac", 1_500), ("td3", 1_500)])
def test_the_policy_learns_to_repeat_its_observation(tmp_path, algorithm, steps):
    config = TrainConfig(
        env="test/Match-v0",
        algorithm=algorithm,
        steps=steps,
        n_envs=4 if algorithm == "ppo" else 1,
        ppo=PPOSettings(rollout=64, batch_size=64, learning_rate=3e-3, discount=0.9),
        sac=SACSettings(learning_starts=100, learning_rate=3e-3, batch_size=64, hidden=(32,)),
        td3=TD3Settings(learning_starts=100, learning_rate=3e-3, batch_size=64, hidden=(32,)),
    )
    result = train(config, folder=tmp_path)
    found = evaluate(
        result.policy, lambda count: SyncVectorEnv([Match] * count), episodes=100, seed=0
    )
    assert found.reward.estimate > -0.02  # always zero gives -0.33, random gives -0.67

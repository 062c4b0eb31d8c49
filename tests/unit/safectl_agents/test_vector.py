"""Vector environments of Gymnasium for Stable-Baselines3."""

from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from safectl.errors import ConfigError
from safectl_agents.acs.collect import cost_of
from safectl_agents.vector import GymnasiumVecEnv


class Ends(gymnasium.Env):
    """Ends after some steps, the last of which costs 1."""

    observation_space = action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, steps, *, tells):
        self.steps, self.tells, self.left = steps, tells, steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.steps
        return np.zeros(1, np.float32), self._info(0.0)

    def step(self, action):
        self.left -= 1
        ended = self.left == 0
        return np.zeros(1, np.float32), 0.0, ended, False, self._info(float(ended))

    def _info(self, cost):
        return {"cost": cost} if self.tells else {}


def vector(*, tells):
    copies = [partial(Ends, steps, tells=tells) for steps in (2, 3)]
    return GymnasiumVecEnv(SyncVectorEnv(copies, autoreset_mode=AutoresetMode.SAME_STEP))


def test_the_cost_of_a_last_step_is_not_that_of_the_restart():
    env = vector(tells=True)
    env.reset()
    costs = [[info["cost"] for info in env.step(np.zeros((2, 1)))[3]] for _ in range(6)]
    assert np.sum(costs, axis=0).tolist() == [3.0, 2.0]
    assert costs[1] == [1.0, 0.0]


def test_an_environment_without_a_cost_is_not_one_without_violations():
    env = vector(tells=False)
    env.reset()
    infos = env.step(np.zeros((2, 1)))[3]
    with pytest.raises(ConfigError):
        cost_of(infos[0])

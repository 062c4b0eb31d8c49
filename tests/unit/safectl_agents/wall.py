"""A point on a line, rewarded for going right, with a cost right of 1: fast enough for tests."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from safectl_agents.acs.collect import ConstraintSettings
from safectl_agents.acs.critic import CriticSettings
from safectl_agents.acs.projection import ProjectionSettings

SMALL = CriticSettings(hidden=(16,))


def quick():
    """Return new arguments for a fast trainer; the library writes into the inner dictionary."""
    return {
        "learning_starts": 20,
        "buffer_size": 500,
        "batch_size": 16,
        "device": "cpu",
        "policy_kwargs": {"net_arch": [16]},
    }


class Wall(gym.Env):
    """x' = x + 0.1 u with |u| <= limit; reward x; cost beyond 1; fails beyond 3; 25 steps."""

    def __init__(self, limit=1.0, has_cost=True):
        self.observation_space = Box(-5.0, 5.0, (1,), np.float32)
        self.action_space = Box(-limit, limit, (1,), np.float32)
        self.has_cost = has_cost

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x, self._steps = float(self.np_random.uniform(-1.0, 1.5)), 0
        return np.array([self._x], np.float32), {}

    def step(self, action):
        self._x += 0.1 * float(action[0])
        self._steps += 1
        info = {"cost": float(self._x > 1.0)} if self.has_cost else {}
        done = self._x > 3.0
        return np.array([self._x], np.float32), self._x, done, self._steps >= 25, info


def constraint(projection=None, **options):
    """Return settings with a small critic that guard from step 0."""
    layer = projection or ProjectionSettings(critic=SMALL)
    return ConstraintSettings(layer, **{"guard_from": 0, **options})

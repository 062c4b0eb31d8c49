"""A point on a line that is pushed towards zero, with a cost beyond +-1 and a flaw on demand."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box

from safectl.safeguards import Clip
from safectl.spec import Signal, Spec
from safectl_agents.models import GuardFactory
from safectl_agents.settings import PPOSettings, SACSettings, TD3Settings, TrainConfig


class Slide(gym.Env):
    """x' = x + 0.2 u + wear; reward -x^2. Wear grows for ever, resets do not repair it."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, *, render_mode=None, flaw=""):
        self.observation_space = Box(-5.0, 5.0, (2,), np.float32)
        self.action_space = Box(-2.0, 2.0, (1,), np.float32)
        self.render_mode, self.flaw = render_mode, flaw
        self._wear = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x = float(self.np_random.uniform(-1.5, 1.5))
        self._steps = 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self._wear += 1e-4
        noise = 0.01 * float(self.np_random.normal())
        self._x = float(np.clip(self._x + 0.2 * float(action[0]) + self._wear + noise, -5.0, 5.0))
        self._steps += 1
        reward = -(self._x**2)
        late = self._steps == 5
        if self.flaw == "reward" and late:
            reward = float("nan")
        truncated = self._steps >= 20
        return self._observe(), reward, False, truncated, {"cost": float(abs(self._x) > 1.0)}

    def render(self):
        picture = np.full((60, 80, 3), 230, np.uint8)
        column = int(np.clip(40 + 15 * self._x, 0, 75))
        picture[20:40, column : column + 5] = (0, 80, 160)
        return picture

    def _observe(self):
        broken = self.flaw == "observation" and self._steps == 5
        return np.array([np.nan if broken else self._x, self._steps / 20.0], np.float32)


SPEC = Spec(
    (Signal("position", "m", -5.0, 5.0), Signal("time", "1", -5.0, 5.0)),
    (Signal("push", "N", -0.5, 0.5),),
    0.1,
)


class Narrowing(Clip):
    """Learns: halves its limits after 200 steps and sums what it is told."""

    def __init__(self):
        super().__init__(SPEC)
        self.sums = torch.zeros(3, dtype=torch.float64)

    def filter(self, observation, action, /):
        limit = 0.25 if self.sums[0] > 200 else 0.5
        return super().filter(observation, action.clamp(-limit, limit))

    def learn(self, observation, executed, infos, /):
        costs = sum(info["cost"] for info in infos)
        self.sums += torch.tensor([len(infos), float(executed.sum()), costs], dtype=torch.float64)

    def state(self):
        return {"sums": self.sums}

    def load_state(self, state, /):
        self.sums = state["sums"].clone()


NARROWING = GuardFactory(lambda env, rows: Narrowing())
HALF = GuardFactory(lambda env, rows: Clip(SPEC))
"""A safeguard that keeps pushes within +-0.5."""


def register():
    if "test/Slide-v0" not in gym.registry:
        gym.register("test/Slide-v0", Slide)
        for flaw in ("reward", "observation"):
            gym.register(f"test/Slide-{flaw}-v0", Slide, kwargs={"flaw": flaw})


def small(algorithm="ppo", **changes):
    settings = {
        "env": "test/Slide-v0",
        "algorithm": algorithm,
        "steps": 512,
        "n_envs": 2,
        "checkpoint_every": 128,
        "ppo": PPOSettings(rollout=32, batch_size=32, epochs=2, hidden=(8,)),
        "sac": SACSettings(learning_starts=40, batch_size=8, hidden=(8,), buffer_size=300),
        "td3": TD3Settings(learning_starts=40, batch_size=8, hidden=(8,), buffer_size=300),
    }
    return TrainConfig(**(settings | changes))

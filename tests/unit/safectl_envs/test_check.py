"""The checker names the rule, the index and the value."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from safectl.spec import Signal, Spec
from safectl_envs import EnvironmentProblem, SafeEnv, check_env


class Sound(gymnasium.Env):
    """A small environment that obeys every rule; tests break one each."""

    metadata = {"render_modes": []}  # noqa: RUF012
    limit = 1.0
    unit = "m"
    signals_low = -1.0

    def __init__(self):
        self.observation_space = Box(-1.0, 1.0, (2,), dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), dtype=np.float32)
        self.signals = Spec(
            (Signal("place", self.unit, self.signals_low, 1.0), Signal("turn", "rad", -1.0, 1.0)),
            (Signal("push", "N", -1.0, 1.0),),
            0.1,
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def observe(self):
        return np.array([self.np_random.uniform(-0.5, 0.5), 0.0], dtype=np.float32)

    def info(self):
        return {"cost": 0.0}

    def step(self, action):
        self.count += 1
        return self.observe(), 0.0, False, self.count >= 20, self.info()


def test_a_sound_environment_passes():
    check_env(Sound())


class Unitless(Sound):
    unit = ""


class OtherBounds(Sound):
    signals_low = -2.0


class Escaping(Sound):
    def observe(self):
        return np.array([0.0, 1.5 if getattr(self, "count", 0) == 7 else 0.0], dtype=np.float32)


class Silent(Sound):
    def info(self):
        return {}


class Negative(Sound):
    def info(self):
        return {"cost": -1.0}


class Erratic(Sound):
    drift = 0.0

    def observe(self):
        Erratic.drift += 1e-4
        late = self.count > 2
        return np.array([0.0, Erratic.drift if late else 0.0], dtype=np.float32)


class Nameless(Sound):
    def __init__(self):
        super().__init__()
        del self.signals


class Short(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = Box(-1.0, 1.0, (3,), dtype=np.float32)


class Broken(Sound):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class Lucky(Sound):
    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        Lucky.total = getattr(Lucky, "total", 0.0) + (1.0 if self.count > 2 else 0.0)
        reward = Lucky.total if self.count > 2 else 0.0
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Unitless, r"observation\[0\] \(place\) has no unit"),
        (OtherBounds, r"observation\[0\] \(place\): bounds \[-2.0, 1.0\] m"),
        (Escaping, r"observation\[1\] \(turn \[rad\]\) is 1.5 at step 6"),
        (Silent, r"info\['cost'\] at step 0 is None"),
        (Negative, r"info\['cost'\] at step 0 is -1.0"),
        (Erratic, r"observation\[1\] \(turn \[rad\]\) is .* after 3 steps from one seed"),
        (Nameless, "no `signals`"),
        (Short, "2 signals, but the space is Box"),
        (Broken, "Gymnasium's checker"),
        (Lucky, "the reward is .* after 3 steps"),
    ],
)
def test_the_message_names_what_is_wrong(broken, message):
    with pytest.raises(EnvironmentProblem, match=message):
        check_env(broken())


def test_units_can_be_waived_and_the_index_is_still_named():
    class Foreign(Escaping):
        def __init__(self):
            super().__init__()
            del self.signals

    with pytest.raises(EnvironmentProblem, match=r"observation\[1\] is 1.5"):
        check_env(Foreign(), units=False)


def test_our_environment_passes_unwrapped():
    check_env(SafeEnv("DoubleIntegrator"))

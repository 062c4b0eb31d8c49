"""A robot on topics as a Gymnasium environment, against the simulator node."""

import numpy as np
import pytest

from safectl_ros.env import RosEnv
from safectl_ros.nodes.sim import SimNode
from safectl_ros.process import RosThread
from safectl_ros.robot import make_env


@pytest.fixture
def simulator(ros_domain):
    """Return a function that starts a simulator node and gives the robot's interface."""
    threads = []

    def start(env_id, **parameters):
        words = {"env_id": env_id, "mode": "lockstep", **parameters}
        arguments = ["--ros-args"]
        for name, value in words.items():
            arguments += ["-p", f"{name}:={value}"]
        threads.append(RosThread(lambda context: SimNode(context), arguments=arguments))
        return threads[-1].node.robot.interface

    yield start
    for thread in threads:
        thread.close()


@pytest.fixture
def connect(ros_domain):
    """Return a function that makes environments and closes them in the end."""
    made = []

    def make(interface, **options):
        options.setdefault("command_topic", interface.safe_topic)
        made.append(RosEnv(interface, **options))
        return made[-1]

    yield make
    for env in made:
        env.close()


def rollout(env, seed, steps):
    """Return all that a fixed sequence of actions leads to, through the end of episodes."""
    rows = []
    generator = np.random.default_rng(7)
    observation, _ = env.reset(seed=seed)
    rows.append(observation)
    for _ in range(steps):
        action = generator.uniform(env.action_space.low, env.action_space.high)
        action = action.astype(env.action_space.dtype)
        observation, reward, terminated, truncated, info = env.step(action)
        rows.append(observation)
        rows.append(np.array([reward, terminated, truncated, info.get("cost", 0.0)]))
        if terminated or truncated:
            observation, _ = env.reset()
            rows.append(observation)
    return rows


@pytest.mark.parametrize(
    ("env_id", "keywords", "dtype"),
    [
        ("safectl/PointHazard-v0", "", np.float32),
        ("Pendulum-v1", "{max_episode_steps: 12}", np.float32),
        ("SafetyPointGoal1-v0", "{max_episode_steps: 12}", np.float32),
        ("InvertedPendulum-v5", "{reset_noise_scale: 0.1}", np.float64),
    ],
)
def test_lock_step_equals_the_same_environment_in_process(
    simulator, connect, env_id, keywords, dtype
):
    interface = simulator(env_id, env_kwargs=f"'{keywords}'")
    env = connect(interface, dtype=dtype)
    ours = rollout(env, 3, 30)
    inside = make_env(env_id, keywords)
    theirs = rollout(inside, 3, 30)
    inside.close()
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)

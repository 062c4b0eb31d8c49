"""The arm that reaches past a sliding cylinder: kinematics, reward, cost, start."""

import ctypes.util
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils import env_checker

from safectl.errors import MissingExtra, NonFiniteError
from safectl_envs import JakaReach, check_env

HOLD = np.array([0.0, 0.0, 1.0, 1.0, 1.0]) / 3.14  # the command that keeps the start


@pytest.fixture
def env():
    with JakaReach() as made:
        yield made


def place(env, *, goal=None, cylinder=None):
    """Move target or cylinder in the middle of an episode."""
    if goal is not None:
        env._goal[:] = goal
    if cylinder is not None:
        env._place[:2] = cylinder


def flange(env):
    return env._data.body("flange").xpos.copy()


def test_the_joint_table_gives_the_arm(env):
    env.reset(seed=0)
    env._data.qpos[:] = 0.0
    env._mujoco.mj_forward(env._model, env._data)
    # All angles zero: joints 3 to 5 lie in a frame turned once about x, the flange in one twice.
    turned = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    at_five = np.array([0.0, 0.0, 0.294]) + turned @ [0.663, 0.0, 0.109] + turned @ [0, -0.0955, 0]
    expected = at_five + turned @ turned @ [0.0, 0.085, 0.0]
    np.testing.assert_allclose(flange(env), expected, atol=1e-9)


@pytest.mark.skipif(ctypes.util.find_library("EGL") is None, reason="apt-get install libegl1")
def test_every_checker_is_silent(monkeypatch):
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    monkeypatch.setenv("MUJOCO_GL", "egl")
    with gymnasium.make("safectl/JakaReach-v0", render_mode="rgb_array") as env:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env_checker.check_env(env.unwrapped)
            check_env(env)
            check_for_sb3(env.unwrapped)
        env.reset(seed=0)
        first = env.render()
        for _ in range(20):
            env.step(np.zeros(5))
        assert first.shape == (360, 480, 3)
        assert not np.array_equal(first, env.render())


def test_the_start_is_the_documented_one(env):
    rows = []
    for seed in range(300):
        observation, _ = env.reset(seed=seed)
        np.testing.assert_allclose(observation[6:], [0, 0, 1, 1, 1, 1], atol=1e-6)
        assert env.clearance() > 0.1
        rows.append((*env._goal, *env._place, env._direction))
    goal, obstacle, direction = np.split(np.array(rows), [3, 6], axis=1)
    assert np.all((np.abs(goal[:, 0]) <= 0.2) & (goal[:, 1] >= 0.4) & (goal[:, 1] <= 0.5))
    towards = (goal[:, 0] - obstacle[:, 0]) * direction[:, 0]
    assert towards.min() >= 0.3
    assert towards.max() <= 0.4
    nearer = goal[:, 1] - obstacle[:, 1]
    assert nearer.min() >= 0.0
    assert nearer.max() <= 0.1
    assert {-1.0, 1.0} == set(direction[:, 0])


def test_far_away_the_reward_is_the_distance(env):
    env.reset(seed=0)
    _, reward, _, _, info = env.step(HOLD)
    assert reward == pytest.approx(-np.linalg.norm(env._goal - flange(env)), abs=1e-9)
    assert info == {"cost": 0.0, "is_success": False, "collisions": 0}


def test_near_the_target_the_reward_grows_and_the_orientation_counts(env):
    env.reset(seed=0)
    place(env, goal=flange(env) + np.array([0.05, 0, 0]))
    _, reward, _, _, info = env.step(HOLD)
    distance = np.linalg.norm(env._goal - flange(env))
    turned = env._data.body("flange").xquat
    miss = min(np.linalg.norm(turned - sign * np.array([0, 1, 0, 0])) for sign in (1, -1))
    assert reward == pytest.approx(0.2 / distance + 0.6 - miss, abs=1e-9)
    assert info["is_success"]
    place(env, goal=flange(env) + np.array([1.0, 0, 0]))
    assert env.step(HOLD)[4]["is_success"], "once is enough"


def test_it_costs_to_be_near_and_a_touch_is_counted_once(env):
    env.reset(seed=0)
    x, y, _ = flange(env)
    outcomes = []
    # Clearance is the horizontal distance to the flange's capsule, less 0.06 m and 0.05 m.
    for away in (0.14, 0.125, 0.05, 0.05, 0.5, 0.05):
        place(env, cylinder=(x + away - 0.002 * env._direction, y))
        *_, info = env.step(HOLD)
        outcomes.append((info["cost"], info["collisions"], round(env.clearance(), 2)))
    costs, collisions, _ = zip(*outcomes, strict=True)
    assert costs == (0.0, 1.0, 1.0, 1.0, 0.0, 1.0)
    assert collisions == (0, 0, 1, 1, 1, 2)


def test_the_cylinder_turns_round_one_metre_from_the_middle(env):
    env.reset(seed=0)
    seen = []
    for _ in range(1200):
        env.step(HOLD)
        seen.append(env._place[0])
    assert np.abs(np.diff(seen)) == pytest.approx(0.002)
    assert 0.998 <= np.abs(seen).max() <= 1.0


def test_the_joints_follow_at_half_a_radian_per_second(env):
    env.reset(seed=0)
    rows = [env.step(np.zeros(5))[0][6:] for _ in range(100)]
    assert np.abs(np.diff(rows, axis=0)).max() < 1.2 * 0.5 * 0.05  # the servo may swing a little
    np.testing.assert_allclose(rows[-1], 0.0, atol=0.01)


def test_a_seed_gives_one_episode_and_it_ends_by_time(env):
    runs = []
    for _ in range(2):
        env.reset(seed=5)
        draws = np.random.default_rng(0).uniform(-1.0, 1.0, (env.horizon, 5))
        steps = [env.step(draw) for draw in draws]
        runs.append(np.stack([step[0] for step in steps]))
        assert [step[3] for step in steps] == [False] * (env.horizon - 1) + [True]
        assert not any(step[2] for step in steps)
    np.testing.assert_array_equal(*runs)


def test_bad_use_is_refused(env, monkeypatch):
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(HOLD)
    env.reset(seed=0)
    with pytest.raises(NonFiniteError, match="action"):
        env.step(np.full(5, np.inf))
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(MissingExtra, match="mujoco"):
        JakaReach()

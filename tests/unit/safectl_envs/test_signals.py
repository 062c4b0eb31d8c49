"""The specification that is read off an environment."""

import gymnasium
import numpy as np
import pytest

import safectl_envs
from safectl.errors import ShapeError
from safectl_envs.signals import UNKNOWN, spec_of


def make(name):
    assert safectl_envs
    return gymnasium.make(name, disable_env_checker=True)


@pytest.mark.parametrize("name", ["HalfCheetah", "Hopper", "Walker2d", "Swimmer", "Ant"])
def test_names_of_velocity_tasks_point_at_the_right_numbers(name):
    env = make(f"Safety{name}Velocity-v1")
    spec = spec_of(env)
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        observation, *_ = env.step(env.action_space.sample())
    data = env.unwrapped.inner.unwrapped.data
    names = [signal.name for signal in spec.observation]
    x_velocity = next(n for n in ("rootx_velocity", "slider1_velocity", "root_vx") if n in names)
    assert observation[names.index(x_velocity)] == pytest.approx(data.qvel[0], rel=1e-6)
    assert {s.unit for s in spec.observation} <= {"m", "rad", "m/s", "rad/s", "1"}
    assert all(s.unit.endswith("N m") for s in spec.action)
    assert spec.period == env.unwrapped.period


def test_half_cheetah_is_named_joint_by_joint():
    spec = spec_of(make("SafetyHalfCheetahVelocity-v1"))
    assert (spec.nx, spec.nu, spec.period) == (17, 6, 0.05)
    assert spec.observation[8].name == "rootx_velocity"
    assert (spec.action[0].name, spec.action[0].unit) == ("bthigh_torque", "120 N m")


def test_our_worlds_say_their_own_signals():
    env = make("safectl/PointHazard-v0")
    assert spec_of(env) == env.unwrapped.world.spec


def test_signals_of_strangers_are_numbered_and_their_unit_is_unknown():
    spec = spec_of(make("Pendulum-v1"))
    assert [s.name for s in spec.observation] == [f"observation_{i}" for i in range(3)]
    assert {s.unit for s in (*spec.observation, *spec.action)} == {UNKNOWN}
    assert spec.period == 0.05


def test_pictures_are_refused():
    class Picture(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (4, 4), np.uint8)
        action_space = gymnasium.spaces.Box(-1, 1, (1,))

    with pytest.raises(ShapeError, match="observation space has shape"):
        spec_of(Picture())

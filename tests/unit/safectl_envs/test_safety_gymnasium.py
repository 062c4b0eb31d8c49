import ctypes.util
import dataclasses
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs import registration
from gymnasium.utils.env_checker import check_env as check_gymnasium
from numpy.typing import NDArray

from safectl.errors import MissingExtra, UnknownNameError
from safectl_envs.safety_gymnasium import SafetyGymnasiumEnv, register_safety_gymnasium
from safectl_envs.safety_import import load_creator
from safectl_envs.safety_tasks import SAFETY_TASKS

NAMES = register_safety_gymnasium()
VELOCITY = [name for name in NAMES if "Velocity" in name]
NAVIGATION = [name for name in NAMES if "Velocity" not in name]
CHECKED = ["SafetyPointGoal1-v0", "SafetyCarPush2-v0", "SafetyRacecarCircle1-v0", *VELOCITY]
PERIODS = {"Ant": 0.05, "HalfCheetah": 0.05, "Hopper": 0.008, "Humanoid": 0.015}
PERIODS |= {"Swimmer": 0.04, "Walker2d": 0.008}

Env = gymnasium.Env[Any, Any]

needs_graphics = pytest.mark.skipif(
    ctypes.util.find_library("EGL") is None,
    reason="apt-get install libegl1 libopengl0 libgl1-mesa-dri",
)


@pytest.fixture
def egl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def inner(env: Env) -> Any:
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, SafetyGymnasiumEnv)
    return unwrapped.inner


def rest(env: Env) -> NDArray[np.float32]:
    return np.zeros_like(env.action_space.sample())


def roll_out(env: Env, seed: int, steps: int) -> Iterator[NDArray[np.float64]]:
    """Yield observation, reward and cost of each step under random actions, over episodes."""
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    yield observation
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert np.isfinite(observation).all()
        assert isinstance(reward, float)
        assert terminated is True or terminated is False
        assert truncated is False
        costs = {key: value for key, value in info.items() if key.startswith("cost")}
        assert "cost" in costs
        assert all(type(value) is float for value in costs.values())
        assert info["cost"] in (0.0, 1.0)
        assert info.get("cost_sum", info["cost"]) == info["cost"]
        yield np.concatenate([observation, [reward, info["cost"]]])
        if terminated:
            observation, _ = env.reset()
            yield observation


def test_the_names_are_those_of_the_package() -> None:
    gymnasium.make("SafetyPointGoal0-v0").close()
    safe_registry = sys.modules["safety_gymnasium.utils.registration"].safe_registry
    left_out = ("Debug", "Vision", "Race0", "Race1", "Race2", "Fading", "Velocity-v0")
    assert set(NAMES) == {n for n in safe_registry if not any(word in n for word in left_out)}
    assert len(NAMES) == 71


@pytest.mark.parametrize("name", [n for n in NAVIGATION if n.startswith("SafetyPoint")])
def test_the_time_limit_is_the_one_of_the_package(name: str) -> None:
    builder = load_creator(SAFETY_TASKS[name].entry_point)
    with pytest.warns(RuntimeWarning, match="overflow encountered in cast"):
        source = builder(task_id=name, config={"agent_name": "Point"})
    assert source.task.num_steps == SAFETY_TASKS[name].max_episode_steps


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_sizes_is_true(name: str) -> None:
    env = gymnasium.make(name)
    sizes = (env.observation_space.shape, env.action_space.shape)
    assert sizes == ((SAFETY_TASKS[name].observation,), (SAFETY_TASKS[name].action,))
    env.close()


def test_registering_twice_changes_nothing() -> None:
    before = dict(registration.registry)
    assert register_safety_gymnasium() == NAMES
    assert before == registration.registry


def test_registering_imports_neither_the_package_nor_mujoco() -> None:
    run_in_a_fresh_interpreter(
        """
        import sys
        from safectl_envs.safety_gymnasium import register_safety_gymnasium
        register_safety_gymnasium()
        assert not {"safety_gymnasium", "mujoco", "glfw", "pygame"} & set(sys.modules)
        """
    )


def test_nothing_is_patched_after_the_import() -> None:
    run_in_a_fresh_interpreter(
        """
        import dataclasses, sys
        import gymnasium, numpy
        from gymnasium.envs import registration
        from safectl_envs.safety_gymnasium import register_safety_gymnasium
        register_safety_gymnasium()
        specs, functions = dict(registration.registry), dict(vars(dataclasses))
        for name in ("SafetySwimmerVelocity-v1", "SafetyPointGoal1-v0"):
            gymnasium.make(name).reset()
            assert specs == registration.registry
            assert functions == vars(dataclasses)
            for module in ("autoreset", "compatibility", "env_checker", "normalize", "time_limit"):
                assert f"gymnasium.wrappers.{module}" not in sys.modules
            assert "safety_gymnasium.tasks.safe_multi_agent.safe_mujoco_multi" not in sys.modules
            assert not {"gymnasium_robotics", "pettingzoo"} & set(sys.modules)
        holder = type("Holder", (), {"__annotations__": {"x": object}, "x": numpy.zeros(2)})
        try:
            dataclasses.dataclass(holder)
        except ValueError:
            pass
        else:
            raise AssertionError("an array was accepted as default")
        """
    )


def run_in_a_fresh_interpreter(code: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_a_missing_package_is_named_and_nothing_stays_patched() -> None:
    specs = dict(registration.registry)
    dataclass = dataclasses.dataclass
    with pytest.raises(MissingExtra, match=r"safety_gymnasium\.absent") as caught:
        load_creator("safety_gymnasium.absent:Absent")
    assert "--no-deps safety-gymnasium==1.0.0" in caught.value.__notes__[0]
    assert dataclasses.dataclass is dataclass
    assert specs == registration.registry


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="SafetyPointGoal1-v0"):
        SafetyGymnasiumEnv("SafetyPointGaol1-v0")


@pytest.mark.parametrize("name", NAMES)
def test_a_task_runs_and_repeats_itself_under_a_seed(name: str) -> None:
    env = gymnasium.make(name)
    assert env.observation_space.dtype == env.action_space.dtype == np.float32
    first = list(roll_out(env, seed=7, steps=25))
    again = list(roll_out(env, seed=7, steps=25))
    env.close()
    fresh = gymnasium.make(name)
    other = list(roll_out(fresh, seed=7, steps=25))
    fresh.close()
    assert len(first) >= 26
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", ["SafetyPointGoal1-v0", "SafetyHopperVelocity-v1"])
def test_episodes_differ_by_seed_and_without_one(name: str) -> None:
    starts = [gymnasium.make(name).reset(seed=seed)[0] for seed in (0, 1, None, None)]
    env = gymnasium.make(name)
    starts += [env.reset(seed=2)[0], env.reset()[0], env.reset()[0]]
    assert len({start.tobytes() for start in starts}) == len(starts)


def test_a_seed_beyond_32_bits_is_accepted() -> None:
    env = gymnasium.make("SafetyPointGoal0-v0")
    assert np.array_equal(env.reset(seed=2**32 + 5)[0], env.reset(seed=5)[0])


@pytest.mark.parametrize("name", [n for n in NAMES if "Goal0" in n or "Velocity" in n])
def test_the_period_is_what_the_clock_of_the_simulation_shows(name: str) -> None:
    env = gymnasium.make(name)
    env.reset(seed=0)
    data = inner(env).data if "Velocity" in name else inner(env).task.data
    before = data.time
    env.step(rest(env))
    assert env.get_wrapper_attr("period") == pytest.approx(data.time - before)
    assert env.metadata["render_fps"] == round(1.0 / env.get_wrapper_attr("period"))


@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is:UserWarning")
@pytest.mark.filterwarnings("ignore:.*For Box action spaces, we recommend using a symmetric")
@pytest.mark.parametrize("name", CHECKED)
def test_gymnasium_accepts_a_task(name: str) -> None:
    check_gymnasium(gymnasium.make(name).unwrapped, skip_render_check=True)


@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized")
@pytest.mark.parametrize("name", CHECKED)
def test_stable_baselines_accepts_a_task(name: str) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(gymnasium.make(name))


def test_costs_of_a_vector_of_environments_are_floats() -> None:
    envs = gymnasium.make_vec("SafetyPointGoal1-v0", num_envs=2, vectorization_mode="sync")
    envs.reset(seed=0)
    info = envs.step(envs.action_space.sample())[-1]
    assert info["cost"].shape == (2,)
    assert info["cost"].dtype == np.float64


@pytest.mark.parametrize(
    ("name", "body", "cost"),
    [
        ("SafetyPointGoal1-v0", "hazard0", "cost_hazards"),
        ("SafetyCarGoal1-v0", "hazard0", "cost_hazards"),
        ("SafetyPointGoal2-v0", "vase0", "cost_vases_velocity"),
        ("SafetyPointButton1-v0", "button", "cost_buttons"),
        ("SafetyPointButton2-v0", "gremlin0obj", "cost_gremlins"),
        ("SafetyPointPush2-v0", "pillar0", "cost_pillars"),
    ],
)
def test_driving_into_an_obstacle_costs_one(name: str, body: str, cost: str) -> None:
    env = gymnasium.make(name)
    env.reset(seed=3)
    task = inner(env).task
    if body == "button":
        body = f"button{(task.buttons.goal_button + 1) % task.buttons.num}"
    info: dict[str, Any] = {}
    for _ in range(800):
        ahead, left = task._ego_xy(task.data.body(body).xpos[:2])
        action = _steer(name, float(np.arctan2(left, ahead)))
        info = env.step(action)[-1]
        if info[cost]:
            break
    assert info[cost] == info["cost_sum"] == info["cost"] == 1.0


def _steer(name: str, angle: float) -> NDArray[np.float32]:
    turn = float(np.clip(2.0 * angle, -1.0, 1.0))
    forward = 0.5 if abs(angle) < 0.5 else 0.0
    if "Car" in name:
        return np.array([forward - turn, forward + turn], np.float32).clip(-1.0, 1.0)
    return np.array([forward, turn], np.float32)


@pytest.mark.parametrize("name", ["SafetyPointCircle1-v0", "SafetyPointRun0-v0"])
def test_leaving_the_corridor_costs_one(name: str) -> None:
    env = gymnasium.make(name)
    env.reset(seed=0)
    costs = [env.step(np.array([1.0, 0.0], np.float32))[-1]["cost"] for _ in range(400)]
    assert costs[0] == 0.0
    assert max(costs) == 1.0


@pytest.mark.parametrize("name", VELOCITY)
def test_speed_above_the_limit_costs_one(name: str) -> None:
    env = gymnasium.make(name)
    limit = env.get_wrapper_attr("speed_limit")
    assert env.get_wrapper_attr("period") == PERIODS[SAFETY_TASKS[name].robot]
    still = rest(env)
    seen = set()
    for speed in (-3.0, 0.0, 0.5, 1.5, 3.0):
        env.reset(seed=0)
        source = inner(env)
        velocity = source.data.qvel.copy()
        velocity[0] = speed * limit
        source.set_state(source.data.qpos.copy(), velocity)
        info = env.step(still)[-1]
        measured = info["x_velocity"]
        if SAFETY_TASKS[name].robot in ("Ant", "Humanoid"):
            measured = np.hypot(measured, info["y_velocity"])
        assert info["cost"] == float(measured > limit)
        seen.add(info["cost"])
    assert seen == {0.0, 1.0}


@pytest.mark.parametrize("name", ["SafetyHalfCheetahVelocity-v1", "SafetyPointCircle0-v0"])
def test_an_episode_is_truncated_once_at_its_limit(name: str) -> None:
    assert _count_steps(gymnasium.make(name)) == SAFETY_TASKS[name].max_episode_steps


def test_the_time_limit_can_be_longer_than_the_package_says() -> None:
    assert _count_steps(gymnasium.make("SafetyPointRun0-v0", max_episode_steps=600)) == 600


def _count_steps(env: Env) -> int:
    env.reset(seed=0)
    for step in range(1, 2000):
        _, _, terminated, truncated, _ = env.step(rest(env))
        assert not terminated
        if truncated:
            return step
    raise AssertionError("the episode was not truncated")


@needs_graphics
@pytest.mark.usefixtures("egl")
@pytest.mark.parametrize("name", ["SafetyPointGoal1-v0", "SafetyHopperVelocity-v1"])
def test_a_picture_shows_something_and_changes_with_the_episode(name: str) -> None:
    env = gymnasium.make(name, render_mode="rgb_array", width=160, height=120)
    pictures: list[Any] = []
    for seed in (0, 1):
        env.reset(seed=seed)
        for _ in range(10):
            env.step(env.action_space.sample())
        pictures.append(env.render())
    env.close()
    for picture in pictures:
        assert isinstance(picture, np.ndarray)
        assert picture.shape == (120, 160, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 10.0
    assert not np.array_equal(*pictures)


@needs_graphics
@pytest.mark.usefixtures("egl")
def test_depths_have_the_size_that_was_asked_for() -> None:
    env = gymnasium.make("SafetyCarPush1-v0", render_mode="depth_array", width=64, height=48)
    env.reset(seed=0)
    depth: Any = env.render()
    env.close()
    assert isinstance(depth, np.ndarray)
    assert depth.shape == (48, 64)
    assert 0.0 <= depth.min() < depth.max() <= 1.0


@needs_graphics
@pytest.mark.usefixtures("egl")
def test_a_window_is_opened_for_a_human() -> None:
    with pytest.warns(UserWarning, match="HumanRendering wrapper"):
        env = gymnasium.make("SafetyPointGoal1-v0", render_mode="human")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.render() is None
    env.close()

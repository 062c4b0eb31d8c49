"""The guard around single and vector environments, with fakes and with the barrier program."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from safectl.errors import RangeError, ShapeError
from safectl.safeguards import BarrierQP, Brake, Chain, Clip, RateLimit, Remembering
from safectl.types import Certificate, Decision, Status
from safectl_envs import Guard, SafeEnv, SafeVectorEnv, SpeedLimit, VectorGuard, true_state


class Halve:
    """Halves actions above one half; takes zero for what is not finite; remembers what it saw."""

    claim = "|u| <= 1/2"

    def __init__(self):
        self.seen, self.forgotten = [], []

    def filter(self, observation, action):
        self.seen.append(observation)
        finite = action.isfinite().all(-1)
        large = (action.abs() > 0.5).any(-1)
        executed = torch.where(large.unsqueeze(-1), 0.5 * action, action)
        executed = torch.where(finite.unsqueeze(-1), executed, torch.zeros_like(action))
        status = torch.where(finite, large.int(), Status.FALLBACK.value).to(torch.int8)
        zero = torch.zeros(len(action))
        return Decision(executed, Certificate(status, 0.5 - executed.abs().amax(-1), zero, zero))

    def reset(self, rows):
        self.forgotten.append(rows.tolist())


class Plain(gymnasium.Env):
    """Somebody else's environment: float64, and only an action counter inside."""

    def __init__(self, length=100):
        self.observation_space = Box(-9.0, 9.0, (3,), dtype=np.float64)
        self.action_space = Box(-1.0, 1.0, (2,), dtype=np.float64)
        self.received, self.length = [], length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.received = []
        return np.full(3, -1.0), {"fresh": True}

    def step(self, action):
        self.received.append(action)
        count = len(self.received)
        return np.full(3, 0.1 * count), 2.5, count >= self.length, False, {"cost": 1.0}


def test_the_corrected_action_is_executed_and_reported():
    env = Guard(Plain(), Halve())
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(np.array([0.8, 0.1]))
    np.testing.assert_allclose(env.unwrapped.received[0], [0.4, 0.05], atol=1e-7)
    np.testing.assert_array_equal(env.unwrapped.received[0], info["action_executed"])
    np.testing.assert_array_equal(info["action_proposed"], [0.8, 0.1])
    assert env.unwrapped.received[0].dtype == np.float64
    assert (info["status"], info["cost"], reward) == (Status.CORRECTED, 1.0, 2.5)
    assert isinstance(info["certificate"], Certificate)
    assert (observation.dtype, terminated, truncated) == (np.float64, False, False)


def test_the_safeguard_sees_the_last_observation_as_float32():
    safeguard = Halve()
    env = Guard(Plain(), safeguard)
    env.reset()
    env.step(np.zeros(2))
    env.step(np.zeros(2))
    assert torch.equal(torch.cat(safeguard.seen)[:, 0], torch.tensor([-1.0, 0.1]))


def test_another_dtype_can_be_chosen():
    safeguard = Halve()
    env = Guard(Plain(), safeguard, dtype=torch.float64)
    env.reset()
    env.step(np.zeros(2))
    assert safeguard.seen[0].dtype == torch.float64


def test_an_action_that_is_not_finite_leads_to_the_fallback():
    env = Guard(SafeEnv("SpeedLimit"), Halve())
    env.reset(seed=0)
    info = env.step(np.array([np.nan, 1.0], dtype=np.float32))[4]
    assert info["status"] is Status.FALLBACK
    np.testing.assert_array_equal(info["action_executed"], [0.0, 0.0])


def test_a_later_change_of_the_callers_array_does_not_change_the_report():
    env, action = Guard(Plain(), Halve()), np.array([0.2, 0.2])
    env.reset()
    info = env.step(action)[4]
    action[:] = 9.0
    np.testing.assert_array_equal(info["action_proposed"], [0.2, 0.2])


def test_a_reset_of_the_environment_resets_the_safeguard():
    safeguard = Halve()
    env = Guard(Plain(), safeguard)
    env.reset()
    env.reset()
    assert safeguard.forgotten == [[True], [True]]


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 2)])
def test_an_action_of_the_wrong_shape_is_refused(shape):
    env = Guard(Plain(), Halve())
    env.reset()
    with pytest.raises(ShapeError, match="action"):
        env.step(np.zeros(shape))


def test_spaces_that_are_not_flat_boxes_are_refused():
    with pytest.raises(ShapeError, match="action space"):
        Guard(gymnasium.make("CartPole-v1"), Halve())
    env = Plain()
    env.observation_space = Box(0.0, 1.0, (4, 4))
    with pytest.raises(ShapeError, match="observation space"):
        Guard(env, Halve())


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        Guard(Plain(), Halve()).step(np.zeros(2))
    with pytest.raises(gymnasium.error.ResetNeeded):
        VectorGuard(SafeVectorEnv("SpeedLimit", num_envs=2), Halve()).step(np.zeros((2, 2)))


def test_a_state_of_the_wrong_size_is_refused():
    env = Guard(Plain(), Halve(), state=lambda _: torch.zeros(2, 3))
    env.reset()
    with pytest.raises(ShapeError, match="state"):
        env.step(np.zeros(2))


def test_the_true_state_is_seen_through_wrappers():
    env = gymnasium.make("safectl/PointHazard-v0")
    env.reset(seed=0)
    assert true_state(env).shape == (1, 19)
    assert torch.equal(true_state(env), env.unwrapped.model_state)


def test_an_environment_without_a_true_state_is_refused_by_name():
    with pytest.raises(RangeError, match="model_state"):
        true_state(Plain())


def test_the_first_example_of_the_readme_runs():
    env = gymnasium.make("safectl/PointHazard-v0")
    world = env.unwrapped.world
    safeguard = BarrierQP(world.barrier, world.dynamics, fallback=Brake(world.spec))
    env = Guard(env, safeguard, state=true_state)
    _observation, info = env.reset(seed=0)
    for _ in range(20):
        _observation, _reward, _terminated, _truncated, info = env.step(env.action_space.sample())
        assert float(info["certificate"].margin) >= 0.0
        assert info["cost"] == 0.0


def test_a_guard_by_the_observation_keeps_the_speed_limit():
    world = SpeedLimit()
    env = Guard(SafeEnv(world), BarrierQP(world.barrier, world.dynamics, fallback=world.fallback))
    env.reset(seed=0)
    infos = [env.step(np.array([1.0, 0.2], dtype=np.float32))[4] for _ in range(199)]
    assert sum(info["cost"] for info in infos) == 0.0
    assert {info["status"] for info in infos} == {Status.KEPT, Status.CORRECTED}


def test_a_row_of_the_vector_guard_equals_the_single_guard():
    world = SpeedLimit()
    safeguard = BarrierQP(world.barrier, world.dynamics, fallback=world.fallback)
    single = Guard(SafeEnv(world), safeguard)
    vector = VectorGuard(SafeVectorEnv(world, num_envs=1), safeguard)
    np.testing.assert_array_equal(single.reset(seed=3)[0], vector.reset(seed=3)[0][0])
    action = np.array([1.0, 0.5], dtype=np.float32)
    for _ in range(120):
        one, many = single.step(action), vector.step(action[None])
        np.testing.assert_array_equal(one[0], many[0][0])
        np.testing.assert_array_equal(one[4]["action_executed"], many[4]["action_executed"][0])
        assert int(one[4]["status"]) == many[4]["status"][0]


def test_the_vector_guard_reports_arrays():
    env = VectorGuard(SafeVectorEnv("SpeedLimit", num_envs=3), Halve())
    env.reset(seed=0)
    actions = np.array([[1.0, 0.0], [0.2, 0.0], [np.nan, 0.0]], dtype=np.float32)
    info = env.step(actions)[4]
    assert info["status"].tolist() == [1, 0, 2]
    assert info["action_executed"].tolist() == [[0.5, 0.0], [pytest.approx(0.2), 0.0], [0.0, 0.0]]
    assert info["cost"].shape == info["margin"].shape == info["risk"].shape == (3,)
    assert info["_status"].all()
    assert isinstance(info["certificate"], Certificate)


def test_the_vector_guard_refuses_actions_of_the_wrong_shape():
    env = VectorGuard(SafeVectorEnv("SpeedLimit", num_envs=3), Halve())
    env.reset(seed=0)
    with pytest.raises(ShapeError, match="action"):
        env.step(np.zeros((2, 2)))


def test_a_restart_in_the_same_step_resets_the_memory_of_its_row():
    safeguard = Halve()
    env = VectorGuard(SafeVectorEnv(SpeedLimit(horizon=2), num_envs=2), safeguard)
    env.reset(seed=0)
    env.step(np.zeros((2, 2)))
    env.step(np.zeros((2, 2)))
    assert safeguard.forgotten == [[True, True], [False, False], [True, True]]


def test_a_restart_in_the_next_step_resets_the_memory_then():
    safeguard = Halve()
    inner = SyncVectorEnv(
        [lambda: Plain(length=1), lambda: Plain(length=9)], autoreset_mode=AutoresetMode.NEXT_STEP
    )
    env = VectorGuard(inner, safeguard)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros((2, 2)))
    assert safeguard.forgotten[1:] == [[False, False], [True, False], [False, False]]


def test_a_partial_reset_resets_the_memory_of_the_masked_rows():
    safeguard = Halve()
    inner = SyncVectorEnv(
        [lambda: Plain(length=1), lambda: Plain(length=9)], autoreset_mode=AutoresetMode.DISABLED
    )
    env = VectorGuard(inner, safeguard)
    env.reset(seed=[1, 2])
    env.step(np.zeros((2, 2)))
    env.reset(options={"reset_mask": np.array([True, False])})
    assert safeguard.forgotten == [[True, True], [True, False]]


def test_a_safeguard_with_a_memory_works_over_episodes():
    world = SpeedLimit(horizon=5)
    limit = RateLimit(world.spec, (2.0, 2.0), rows=3)
    env = VectorGuard(SafeVectorEnv(world, num_envs=3), Remembering(limit, [limit]))
    env.reset(seed=0)
    full = np.ones((3, 2), dtype=np.float32)
    executed = [env.step(full)[4]["action_executed"][0, 0] for _ in range(7)]
    np.testing.assert_allclose(executed, [0.1, 0.2, 0.3, 0.4, 0.5, 0.1, 0.2], atol=1e-6)


@pytest.mark.parametrize("is_vector", [False, True])
def test_a_memory_that_is_not_told_what_was_decided_is_refused(is_vector):
    world = SpeedLimit(horizon=5)
    limit, brake = RateLimit(world.spec, (2.0, 2.0), rows=1), Brake(world.spec)
    chain = Chain(limit, Clip(world.spec), fallback=brake)

    def guard(safeguard):
        if is_vector:
            return VectorGuard(SafeVectorEnv(world, num_envs=1), safeguard)
        return Guard(SafeEnv(world), safeguard)

    for safeguard in (limit, chain, Remembering(chain, [])):
        with pytest.raises(RangeError, match="Remembering"):
            guard(safeguard)
    guard(Remembering(chain, [limit]))
    guard(Chain(Remembering(limit, [limit]), fallback=brake))

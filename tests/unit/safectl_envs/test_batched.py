"""Batches: automatic restarts, the vector interface and the shapes at their edge."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from safectl.errors import NonFiniteError, RangeError, ShapeError
from safectl_envs import BatchedEnv, DoubleIntegrator, PointHazard, SafeVectorEnv, SpeedLimit


def make(world, count, seed=0, **options):
    return BatchedEnv(world, count, torch.Generator().manual_seed(seed), **options)


def test_the_time_limit_restarts_all_rows_and_reports_the_last_observation():
    env = make(SpeedLimit(horizon=3), 5)
    push = torch.tensor([[1.0, 0.0]]).expand(5, -1)
    first, second, third = env.step(push), env.step(push), env.step(push)
    assert not first.truncated.any()
    assert torch.equal(second.observation, second.final_observation)
    assert third.truncated.all()
    assert not third.terminated.any()
    assert bool((third.final_observation[:, 1] > second.observation[:, 1]).all())
    assert bool((third.observation[:, 1].abs() <= 0.3).all())
    assert not env.step(push).truncated.any()


def test_only_the_rows_that_ended_restart():
    env = make(DoubleIntegrator(), 3)
    env.state[1, :4] = torch.tensor([1.99, 0.0, 1.0, 0.0])
    step = env.step(torch.zeros(3, 2))
    assert step.terminated.tolist() == [False, True, False]
    assert step.cost.tolist() == [0.0, 1.0, 0.0]
    assert float(step.final_observation[1, 0]) > 2.0
    assert float(step.observation[1, 0].abs()) < 0.9
    assert env.steps.tolist() == [1.0, 0.0, 1.0]
    assert torch.equal(step.observation[[0, 2]], step.final_observation[[0, 2]])


def test_a_state_that_ends_at_the_horizon_counts_as_terminated():
    env = make(DoubleIntegrator(horizon=1), 1)
    env.state[0, :4] = torch.tensor([1.99, 0.0, 1.0, 0.0])
    step = env.step(torch.zeros(1, 2))
    assert (bool(step.terminated), bool(step.truncated)) == (True, False)


def test_float64_states_stay_float64():
    env = make(PointHazard(), 2, dtype=torch.float64)
    step = env.step(torch.zeros(2, 2))
    assert {step.observation.dtype, step.reward.dtype, step.cost.dtype} == {torch.float64}


@pytest.mark.parametrize("shape", [(2, 2), (3, 1), (3,)])
def test_actions_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(ShapeError, match="action"):
        make(SpeedLimit(), 3).step(torch.zeros(shape))


def test_an_action_that_is_not_finite_is_refused():
    actions = torch.zeros(3, 2)
    actions[1, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="1 non-finite"):
        make(SpeedLimit(), 3).step(actions)


def test_an_empty_batch_is_refused():
    with pytest.raises(RangeError, match="count"):
        make(SpeedLimit(), 0)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_numbers():
    world = PointHazard()
    state = world.initial(64, torch.Generator().manual_seed(0))
    actions = 2.0 * torch.rand(20, 64, 2, generator=torch.Generator().manual_seed(1)) - 1.0
    there = state.cuda()
    for action in actions:
        state, there = world.step(state, action).state, world.step(there, action.cuda()).state
    observed = world.observe(there).cpu()
    torch.testing.assert_close(observed, world.observe(state), rtol=0.0, atol=1e-4)
    env = BatchedEnv(world, 64, torch.Generator("cuda"))
    assert env.step(actions[0].cuda()).observation.is_cuda


def test_the_vector_environment_is_what_make_vec_makes():
    envs = gymnasium.make_vec(
        "safectl/PointHazard-v0", num_envs=4, vectorization_mode="vector_entry_point"
    )
    assert isinstance(envs, SafeVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    observation, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
    assert envs.observation_space.contains(observation)
    assert (reward.shape, terminated.dtype, truncated.dtype) == ((4,), np.bool_, np.bool_)
    assert info["cost"].shape == (4,)
    assert info["_cost"].all()
    assert envs.signals is envs.world.spec
    assert envs.model_state.shape == (4, 19)


def test_the_vector_environment_reports_the_last_observation_and_cost():
    envs = SafeVectorEnv(DoubleIntegrator(), num_envs=3)
    envs.reset(seed=0)
    envs.batched.state[1, :4] = torch.tensor([1.99, 0.0, 1.0, 0.0])
    observation, _, terminated, _, info = envs.step(np.zeros((3, 2), dtype=np.float32))
    assert terminated.tolist() == info["_final_obs"].tolist() == [False, True, False]
    assert info["final_obs"][1][0] > 2.0 > abs(observation[1][0])
    assert info["final_info"]["cost"][1] == 1.0
    assert "final_obs" not in envs.step(np.zeros((3, 2), dtype=np.float32))[4]


def test_the_vector_environment_repeats_itself_for_a_seed_and_not_without():
    one, other = SafeVectorEnv("SpeedLimit", num_envs=2), SafeVectorEnv("SpeedLimit", num_envs=2)
    first = one.reset(seed=5)[0]
    np.testing.assert_array_equal(first, other.reset(seed=5)[0])
    np.testing.assert_array_equal(one.reset()[0], other.reset()[0])
    assert not np.array_equal(first, SafeVectorEnv("SpeedLimit", num_envs=2).reset()[0])


def test_a_list_of_seeds_is_refused():
    with pytest.raises(RangeError, match="one seed"):
        SafeVectorEnv("SpeedLimit", num_envs=2).reset(seed=[1, 2])

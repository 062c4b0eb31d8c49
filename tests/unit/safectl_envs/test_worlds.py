"""What every world must obey, alone and in a batch."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils import env_checker

from safectl.errors import NonFiniteError, RangeError, ShapeError, UnknownNameError
from safectl.types import Barrier, Dynamics
from safectl_envs import BatchedEnv, SafeEnv, SafeVectorEnv, World, check_env
from safectl_envs.catalogue import WORLDS, find_world
from safectl_envs.world import model_state

NAMES = tuple(WORLDS)
ROW_TOLERANCE = 1e-4  # vectorised sine and cosine differ by an ulp, and the cart-pole is unstable
MODEL_TOLERANCE = 1e-6  # one float32 step of numbers of order one


@pytest.fixture(params=NAMES)
def world(request):
    return find_world(request.param)


def draw_actions(world, steps, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.rand(steps, count, world.spec.nu, generator=generator) - 1.0


def bang(world, steps, count, seed=2):
    """Full actions that are held for 25 steps."""
    return draw_actions(world, steps, count, seed).sign()[torch.arange(steps) // 25]


def test_the_parts_are_what_the_protocols_say(world):
    assert isinstance(world, World)
    assert isinstance(world.dynamics, Dynamics)
    assert isinstance(world.barrier, Barrier)
    assert world.spec.nu == world.dynamics.nu


def test_a_single_environment_equals_a_batch_of_one_bit_for_bit(world):
    single, batch = SafeEnv(world), BatchedEnv(world, 1, torch.Generator())
    observation, _ = single.reset(seed=7)
    np.testing.assert_array_equal(observation, batch.reset(seed=7)[0].numpy())
    for action in draw_actions(world, 300, 1):
        observation, reward, terminated, truncated, info = single.step(action[0].numpy())
        step = batch.step(action)
        np.testing.assert_array_equal(observation, step.final_observation[0].numpy())
        assert (reward, info["cost"]) == (float(step.reward), float(step.cost))
        assert (terminated, truncated) == (bool(step.terminated), bool(step.truncated))
        if terminated or truncated:
            observation, _ = single.reset()
        np.testing.assert_array_equal(observation, step.observation[0].numpy())


def test_rows_do_not_influence_each_other(world):
    state = world.initial(17, torch.Generator().manual_seed(3))
    alone = state[5:6].clone()
    for actions in draw_actions(world, 50, 17):
        together, single = world.step(state, actions), world.step(alone, actions[5:6])
        state, alone = together.state, single.state
        torch.testing.assert_close(together.reward[5:6], single.reward, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(state[5:6], alone, rtol=ROW_TOLERANCE, atol=ROW_TOLERANCE)


def test_a_step_leaves_its_input_as_it_was(world):
    state = world.initial(4, torch.Generator().manual_seed(3))
    before = state.clone()
    outcome = world.step(state, draw_actions(world, 1, 4)[0])
    world.observe(state).add_(1.0)
    outcome.reward.add_(1.0)
    assert torch.equal(state, before)


def test_equal_seeds_give_equal_episodes_and_others_do_not(world):
    def roll(seed):
        env = SafeEnv(world)
        rows = [env.reset(seed=seed)[0]]
        rows += [env.step(action[0].numpy())[0] for action in draw_actions(world, 20, 1)]
        return np.stack([*rows, env.reset()[0]])

    np.testing.assert_array_equal(roll(11), roll(11))
    assert not np.array_equal(roll(11), roll(12))


def test_two_environments_without_a_seed_start_differently(world):
    assert not np.array_equal(SafeEnv(world).reset()[0], SafeEnv(world).reset()[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_checker_is_silent(name):
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    env = gymnasium.make(f"safectl/{name}-v0", render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env_checker.check_env(env.unwrapped)
        check_for_sb3(env.unwrapped, skip_render_check=False)
        check_env(env)


def test_observations_stay_in_their_bounds_under_full_actions(world):
    env = BatchedEnv(world, 64, torch.Generator().manual_seed(0))
    low = torch.tensor([signal.low for signal in world.spec.observation])
    high = torch.tensor([signal.high for signal in world.spec.observation])
    for action in bang(world, 2 * world.horizon, 64):
        observation = env.step(action).final_observation
        assert bool(((observation >= low) & (observation <= high)).all())


def test_episodes_begin_strictly_inside_the_barrier_and_cost_nothing(world):
    state = world.initial(2000, torch.Generator().manual_seed(0))
    assert float(world.barrier.value(model_state(world, state)).min()) > 0.0


def test_the_model_is_true(world):
    state = world.initial(200, torch.Generator().manual_seed(0))
    for action in draw_actions(world, 5, 200):
        predicted = world.dynamics.predict(model_state(world, state), action).mean
        state = world.step(state, action).state
        torch.testing.assert_close(
            model_state(world, state), predicted, rtol=0.0, atol=MODEL_TOLERANCE
        )


def test_the_gain_is_the_derivative_of_the_rate_along_the_actions(world):
    state = model_state(world, world.initial(3, torch.Generator().manual_seed(0))).double()
    zero, period = torch.zeros(3, world.spec.nu, dtype=torch.float64), world.spec.period
    for index in range(world.spec.nu):
        unit = zero.clone()
        unit[:, index] = 1.0
        moved = world.dynamics.predict(state, unit).mean - world.dynamics.predict(state, zero).mean
        gain = world.dynamics.gain(state)[..., index]
        torch.testing.assert_close(moved / period, gain, rtol=0.0, atol=0.03)


def test_the_fallback_keeps_the_set_and_costs_nothing(world):
    state = world.initial(500, torch.Generator().manual_seed(4))
    strength = torch.linspace(0.0, 1.0, 500).unsqueeze(-1)
    for actions in bang(world, 10, 500):
        state = world.step(state, strength * actions).state
    model = model_state(world, state)
    state = state[(world.barrier.value(model) >= 0.0).all(-1)]
    assert len(state) > 5
    for _ in range(100):
        outcome = world.step(state, world.fallback.action(model_state(world, state)))
        state = outcome.state
        value = world.barrier.value(model_state(world, state))
        assert float(value.min()) >= -MODEL_TOLERANCE
        assert float(outcome.cost.sum()) == 0.0


def test_a_state_in_the_barriers_set_costs_nothing(world):
    state = world.initial(1000, torch.Generator().manual_seed(5))
    seen = 0
    for actions in bang(world, 100, 1000):
        outcome = world.step(state, actions)
        state = outcome.state
        inside = (world.barrier.value(model_state(world, state)) >= 0.0).all(-1)
        assert float(outcome.cost[inside].sum()) == 0.0
        seen += int(outcome.cost.sum())
    assert seen > 0


def test_an_action_beyond_its_bounds_saturates(world):
    one, other = SafeEnv(world), SafeEnv(world)
    one.reset(seed=0)
    other.reset(seed=0)
    large, full = np.full(world.spec.nu, 9.0), np.ones(world.spec.nu)
    np.testing.assert_array_equal(one.step(large)[0], other.step(full)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused_and_changes_nothing(world, bad):
    env = SafeEnv(world)
    env.reset(seed=0)
    state = env.model_state.clone()
    with pytest.raises(NonFiniteError, match="Guard"):
        env.step(np.full(world.spec.nu, bad))
    assert torch.equal(env.model_state, state)


def test_an_action_of_the_wrong_shape_is_refused(world):
    env = SafeEnv(world)
    env.reset(seed=0)
    with pytest.raises(ShapeError, match="action"):
        env.step(np.zeros(world.spec.nu + 1))


def test_a_step_before_the_first_reset_is_refused(world):
    with pytest.raises(gymnasium.error.ResetNeeded):
        SafeEnv(world).step(np.zeros(world.spec.nu))


def test_the_episode_is_truncated_at_the_horizon():
    env = SafeEnv("SpeedLimit")
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(200)]
    assert ends == [(False, False)] * 199 + [(False, True)]


@pytest.mark.parametrize("maker", [SafeEnv, SafeVectorEnv])
def test_an_unknown_world_is_named_with_the_known_ones(maker):
    with pytest.raises(UnknownNameError, match="did you mean 'PointHazard'"):
        maker("PointHasard")


def test_an_unknown_render_mode_is_refused():
    with pytest.raises(RangeError, match="rgb_array"):
        SafeEnv("SpeedLimit", render_mode="human")


def test_a_world_of_ones_own_goes_through_make():
    world = find_world("PointHazard").__class__(hazards=3)
    env = gymnasium.make("safectl_envs:safectl/PointHazard-v0", world=world)
    assert env.unwrapped.world.barrier.value(
        env.unwrapped.world.initial(2, torch.Generator())[:, :9]
    ).shape == (2, 3)

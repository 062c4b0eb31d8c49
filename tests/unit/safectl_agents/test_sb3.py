import numpy as np
import pytest
import torch
from slide import HALF, small
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from safectl.types import Policy, Status
from safectl_agents.models import make_model, make_vec_env
from safectl_agents.run_folder import load_trained
from safectl_agents.sb3 import policy_of
from safectl_agents.train import train


def build(tmp_path, config, guard=None):
    env, _ = make_vec_env(config, guard, tmp_path / "e.csv", step=0, violations=0, seed=3)
    return env, make_model(config, env, guarded=guard is not None)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("algorithm", ["ppo", "sac", "td3"])
def test_the_policy_agrees_with_the_library(tmp_path, algorithm, normalise):
    env, model = build(tmp_path, small(algorithm, normalise_observation=normalise))
    model.learn(200)
    policy = policy_of(model)
    assert isinstance(policy, Policy)
    assert (policy.normaliser is None) == (not normalise)
    observation = np.random.default_rng(0).normal(0.0, 3.0, (50, 2)).astype(np.float32)
    seen = env.normalize_obs(observation) if normalise else observation
    expected, _ = model.predict(seen, deterministic=True)
    np.testing.assert_allclose(policy.act(torch.from_numpy(observation)), expected, atol=2e-6)
    env.close()


@pytest.mark.parametrize(
    ("algorithm", "rescaled", "last"),
    [("ppo", False, nn.Linear), ("sac", True, nn.Tanh), ("td3", True, nn.Tanh)],
)
def test_layers_are_plain_and_follow_the_written_formula(tmp_path, algorithm, rescaled, last):
    env, model = build(tmp_path, small(algorithm))
    model.learn(100)
    policy = policy_of(model)
    assert policy.rescaled is rescaled
    assert isinstance(policy.layers[-1], last)
    observation = torch.tensor([[0.3, -0.2]])
    norm = policy.normaliser
    z = (observation - norm.mean) / (norm.variance + norm.epsilon).sqrt()
    y = policy.layers(z.clamp(-norm.clip, norm.clip))
    expected = policy.low + (y + 1.0) / 2.0 * (policy.high - policy.low) if rescaled else y
    torch.testing.assert_close(policy.act(observation), expected.clamp(policy.low, policy.high))
    env.close()


@pytest.mark.parametrize("algorithm", ["ppo", "sac", "td3"])
def test_a_saved_policy_is_read_without_an_environment(tmp_path, algorithm):
    result = train(small(algorithm, steps=128), folder=tmp_path)
    state = torch.get_rng_state()
    policy = load_trained(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    observation = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(policy.act(observation), result.policy.act(observation))


def test_the_policy_shares_no_memory_with_the_model(tmp_path):
    env, model = build(tmp_path, small())
    policy = policy_of(model)
    before = policy.act(torch.ones(1, 2))
    model.learn(64)
    assert torch.equal(before, policy.act(torch.ones(1, 2)))
    env.close()


@pytest.mark.parametrize("store", ["proposal", "executed"])
def test_the_replay_buffer_keeps_what_the_settings_say(tmp_path, store):
    env, model = build(tmp_path, small("sac", store=store), HALF)
    model.learn(60)
    assert isinstance(model, OffPolicyAlgorithm)
    stored = model.replay_buffer.actions[: model.replay_buffer.size()]
    assert np.abs(stored).max() > 0.9 if store == "proposal" else np.abs(stored).max() <= 0.25
    env.close()


def test_the_guard_filters_once_per_vector_step_and_reports_each_row(tmp_path):
    env, _ = make_vec_env(
        small(n_envs=3, normalise_observation=False),
        HALF,
        tmp_path / "e.csv",
        step=0,
        violations=0,
        seed=3,
    )
    env.reset()
    _, _, _, infos = env.step(np.array([[0.2], [2.0], [-2.0]], np.float32))
    assert [info["status"] for info in infos] == [
        Status.KEPT,
        Status.CORRECTED,
        Status.CORRECTED,
    ]
    np.testing.assert_array_equal(
        [i["action_executed"][0] for i in infos], np.float32([0.2, 0.5, -0.5])
    )
    np.testing.assert_array_equal(
        [i["action_proposed"][0] for i in infos], np.float32([0.2, 2.0, -2.0])
    )
    env.close()


def test_the_guard_may_see_a_state_and_is_told_where_episodes_begin(tmp_path):
    from safectl_agents.models import GuardFactory

    seen, begun = [], []

    class Spy:
        claim = "none"

        def __init__(self, env, rows):
            self.inner = HALF.make(env, rows)

        def filter(self, observation, action, /):
            seen.append(observation)
            return self.inner.filter(observation, action)

        def reset(self, rows, /):
            begun.append(rows.tolist())

    guard = GuardFactory(Spy, state=lambda env: torch.tensor([[env.unwrapped._x, 0.0]]))
    env, _ = make_vec_env(small(), guard, tmp_path / "e.csv", step=0, violations=0, seed=3)
    env.reset()
    for _ in range(20):
        env.step(np.zeros((2, 1), np.float32))
    assert len(seen) == 20
    assert seen[0].shape == (2, 2)
    assert begun == [[True, True], [True, True]]
    env.close()

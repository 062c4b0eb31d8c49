"""On-policy trainers: what they execute, record and learn."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from safectl.errors import ConfigError, RangeError
from safectl.types import Status
from safectl_agents.acs.collect import Tally
from safectl_agents.acs.lagrange import (
    CostSide,
    LagrangeSettings,
    PPOLag,
    TRPOLag,
    mixed_advantage,
)
from safectl_agents.acs.ppo import ACSPPO, OnPolicySettings, defaults
from safectl_agents.acs.safety import SafetyLearner, SafetySettings
from safectl_agents.acs.watched import Rollout, Watched, episode_costs
from safectl_envs import Guard

CPU, ROWS = torch.device("cpu"), 10
SMALL = {"n_steps": 100, "batch_size": 50, "seed": 3, "device": "cpu"}
QUICK = SafetySettings(safety_iterations=2, advantage_iterations=2)
WARM = OnPolicySettings(eps_start=10.0, eps_floor=10.0, reward_penalty=0.0, safety=QUICK)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Scripted(gymnasium.Env):
    """Costs and ends as written: one character per step.

    `.` free, `!` costs, `F` fails, `T` runs out of time; then the script begins anew.
    """

    observation_space = Box(-10.0, 10.0, (2,))
    action_space = Box(-2.0, 2.0, (1,))

    def __init__(self, script):
        self.script, self.count = script, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action):
        mark = self.script[self.count % len(self.script)]
        self.count += 1
        observation = np.array([self.count, action[0]], dtype=np.float32)
        return observation, 1.0, mark == "F", mark == "T", {"cost": float(mark == "!")}


def speed_limit(rows=2):
    return make_vec_env("safectl/SpeedLimit-v0", rows, seed=1)


def watch(script, execute=lambda _, action: action, **options):
    tally = Tally()
    env = DummyVecEnv([lambda: Scripted(script)])
    return Watched(env, env.reset(), execute, tally, **options), tally


def play(watched, steps, action=0.5):
    return [watched.step(np.full((1, 1), action, dtype=np.float32)) for _ in range(steps)]


def same(one, other):
    pairs = zip(one.policy.state_dict().values(), other.policy.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_without_a_binding_bound_the_weights_are_those_of_plain_ppo():
    models = []
    for kind, extra in ((ACSPPO, {"constraint": WARM}), (PPO, defaults())):
        model = kind("MlpPolicy", speed_limit(), **{**extra, **SMALL})
        set_random_seed(5)
        models.append(model.learn(600))
    assert models[0].tally.violations > 0
    assert models[0].tally.corrected == 0
    assert same(*models)


def test_with_the_default_penalty_they_are_others():
    models = []
    for penalty in (0.0, 0.1):
        settings = replace(WARM, reward_penalty=penalty)
        model = ACSPPO("MlpPolicy", speed_limit(), constraint=settings, **SMALL)
        set_random_seed(5)
        models.append(model.learn(400))
    assert not same(*models)


def test_the_schedule_tightens_once_per_rollout():
    model = ACSPPO("MlpPolicy", speed_limit(), constraint=OnPolicySettings(safety=QUICK), **SMALL)
    seen = []
    for _ in range(3):
        seen.append(model.bound.tolerance)
        model.learn(200, reset_num_timesteps=False)
    assert seen == pytest.approx([3.7, 3.4, 3.1])
    assert OnPolicySettings().bound(100).tolerance == 0.3


def test_costs_failures_and_time_limits_are_recorded():
    watched, tally = watch(".!F.T", reward_penalty=0.1)
    steps = play(watched, 6)
    np.testing.assert_allclose([float(step[1][0]) for step in steps], [1, 0.9, 0.9, 1, 1, 1])
    rollout = watched.rollout(CPU)
    assert rollout.cost[:, 0].tolist() == [0, 1, 1, 0, 0, 0]  # a failure costs
    assert rollout.end[:, 0].tolist() == [False, False, True, False, True, False]
    assert rollout.timeout[:, 0].tolist() == [False, False, False, False, True, False]
    assert rollout.final.tolist() == [[5.0, 0.5]]
    assert rollout.observation[:4, 0, 0].tolist() == [0.0, 1.0, 2.0, 0.0]
    assert rollout.last.tolist() == [[6.0, 0.5]]
    assert (tally.violations, tally.steps) == (1, 6)


def test_corrections_are_executed_counted_and_penalised():
    watched, tally = watch("....", lambda _, action: action - 0.25, distance_penalty=2.0)
    _, reward, _, _ = play(watched, 1)[0]
    assert float(reward[0]) == pytest.approx(1.0 - 2.0 * 0.25)
    assert watched.rollout(CPU).action.item() == 0.25
    assert (tally.corrected, tally.distance) == (1, pytest.approx(0.25))


def test_a_step_without_cost_is_refused():
    env = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")])
    watched = Watched(env, env.reset(), lambda _, action: action, Tally())
    with pytest.raises(ConfigError, match="cost"):
        play(watched, 1)


def test_costs_of_episodes_go_on_over_the_end_of_a_rollout():
    cost = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    end = torch.tensor([[False, False], [True, False], [False, True]])
    ended, spent = episode_costs(cost, end, torch.tensor([2.0, 0.0]))
    assert ended.tolist() == [3.0, 2.0]
    assert spent.tolist() == [1.0, 0.0]


def rollout_of(observation, action, cost, end):
    rows = cost.shape[1]
    return Rollout(
        observation, action, cost, end, torch.zeros_like(end), torch.zeros(0, 2),
        torch.zeros(rows, observation.shape[2]),
    )  # fmt: skip


def test_the_critics_learn_which_state_and_which_action_is_unsafe():
    generator = torch.Generator().manual_seed(0)
    observation = 2.0 * torch.rand(400, 10, 2, generator=generator) - 1.0
    action = 2.0 * torch.rand(400, 10, 1, generator=generator) - 1.0
    # One step per episode: unsafe where x + a > 0, so Psi(x) = (1 - x) / 2.
    cost = (observation[..., 0] + action[..., 0] > 0.0).float()
    learner = SafetyLearner(2, 1, SafetySettings(label="horizon"), rows=ROWS, seed=0, device=CPU)
    rollout = rollout_of(observation, action, cost, torch.ones_like(cost, dtype=torch.bool))
    for _ in range(4):
        learner.fit(rollout, torch.zeros(10))
    states = torch.tensor([[-0.8, 0.0], [0.0, 0.0], [0.8, 0.0]])
    safety = 1.0 - learner.critic.value(states)
    torch.testing.assert_close(safety, torch.tensor([[0.9], [0.5], [0.1]]), rtol=0.0, atol=0.1)
    middle, actions = torch.zeros(2, 2), torch.tensor([[-0.7], [0.7]])
    gain = learner.critic.value(middle) - learner.critic.cost(middle, actions)
    torch.testing.assert_close(gain, torch.tensor([[0.5], [-0.5]]), rtol=0.0, atol=0.15)


def test_labels_count_what_an_episode_cost_before_the_rollout():
    cost, end = torch.tensor([[1.0], [0.0]]), torch.tensor([[False], [True]])
    learner = SafetyLearner(2, 1, SafetySettings(budget=3.0), rows=ROWS, seed=0, device=CPU)
    rollout = rollout_of(torch.zeros(2, 1, 2), torch.zeros(2, 1, 1), cost, end)
    assert learner.labels(rollout, torch.tensor([0.0])).flatten().tolist() == [1.0, 1.0]
    assert learner.labels(rollout, torch.tensor([2.0])).flatten().tolist() == [0.0, 0.0]


def test_rows_of_violating_episodes_are_remembered_the_newest_first():
    learner = SafetyLearner(2, 1, replace(QUICK, label="horizon"), rows=20, seed=0, device=CPU)
    assert len(learner.memory.recall().label) == 0
    for number in (1.0, 2.0, 3.0):
        observation = torch.full((3, 2, 2), number)
        cost, end = torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.bool)
        cost[2, 1] = 1.0  # the second episode of the second row: its last two steps
        end[0, 1] = True
        rollout = rollout_of(observation, torch.zeros(3, 2, 1), cost, end)
        learner.fit(rollout, torch.zeros(2))
    kept = learner.memory.recall()
    assert kept.observation[:, 0].tolist() == [3.0, 3.0, 2.0, 2.0]  # a fifth of 20 rows
    assert kept.label.flatten().tolist() == [0.0] * 4


def test_of_a_rollout_that_exceeds_the_memory_the_last_rows_are_kept():
    learner = SafetyLearner(2, 1, replace(QUICK, label="horizon"), rows=20, seed=0, device=CPU)
    observation = torch.arange(6.0).reshape(6, 1, 1).expand(6, 1, 2)
    rollout = rollout_of(
        observation, torch.zeros(6, 1, 1), torch.ones(6, 1), torch.zeros(6, 1, dtype=torch.bool)
    )
    learner.fit(rollout, torch.zeros(1))
    assert learner.memory.recall().observation[:, 0].tolist() == [5.0, 4.0, 3.0, 2.0]


def set_constant(network, score):
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        network.members[0][0].bias.fill_(score)


def test_remembered_rows_are_judged_by_the_present_psi():
    settings = SafetySettings(
        label="horizon", hidden=(), safety_iterations=0, advantage_iterations=1, violating_share=1.0
    )
    learner = SafetyLearner(2, 1, settings, rows=4, seed=0, device=CPU)
    cost, end = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool)  # unsafe everywhere: y = 0
    rollout = rollout_of(torch.zeros(2, 2, 2), torch.zeros(2, 2, 1), cost, end)
    for score in (0.0, 2.0):
        set_constant(learner.safety, score)
        set_constant(learner.advantage, 0.0)
        losses = learner.fit(rollout, torch.zeros(2))
        psi = torch.tensor(score).sigmoid().item()
        assert losses["advantage_loss"] == pytest.approx(psi**2)  # of y - Psi = -Psi, all rows


def test_a_second_training_goes_on_with_schedule_and_statistics(tmp_path):
    constraint = OnPolicySettings(safety=QUICK)
    model = ACSPPO("MlpPolicy", speed_limit(), constraint=constraint, **SMALL).learn(400)
    model.save(tmp_path / "model.zip")
    mean = model.learner.safety.mean.clone()
    for again in (model, ACSPPO.load(tmp_path / "model.zip", env=speed_limit())):
        assert again.bound.tolerance == pytest.approx(3.1)
        again.learn(200)  # counts steps from 0 anew
        assert again.bound.tolerance == pytest.approx(2.8)
        assert torch.equal(again.learner.safety.mean, mean)


def test_a_second_training_with_a_multiplier_keeps_the_statistics_of_its_critic():
    settings = LagrangeSettings(iterations=1)
    model = PPOLag("MlpPolicy", speed_limit(), constraint=settings, **SMALL).learn(200)
    mean = model.side.value.mean.clone()
    assert torch.equal(model.learn(200).side.value.mean, mean)


def linear_model(store="proposal"):
    """Psi = 1/2 and A = -a_1: with eps = 0.5 only actions a_1 <= 0 are admissible."""
    settings = OnPolicySettings(
        eps_start=0.5, eps_floor=0.5, eps_step=0.0, store=store,
        safety=SafetySettings(hidden=(), safety_iterations=0, advantage_iterations=0),
    )  # fmt: skip
    model = ACSPPO("MlpPolicy", speed_limit(), constraint=settings, **SMALL)
    with torch.no_grad():
        for network in (model.learner.safety, model.learner.advantage):
            for weight in network.parameters():
                weight.zero_()
        model.learner.advantage.members[0][0].weight[0, 3] = -1.0
    return model


def test_predict_corrects_and_the_policy_proposes():
    model = linear_model()
    observation = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    set_random_seed(0)
    proposal, _ = model.policy.predict(observation, deterministic=False)
    set_random_seed(0)
    action, _ = model.predict(observation, deterministic=False)
    kept = proposal[:, 0] <= 0.0
    assert 50 < kept.sum() < 150
    np.testing.assert_array_equal(action[kept], proposal[kept])
    assert (action[:, 0] <= 0.0).all()
    np.testing.assert_array_equal(action[:, 1], proposal[:, 1])
    single, _ = model.predict(observation[0], deterministic=True)
    assert single.shape == (2,)


def test_the_safeguard_stands_alone_around_any_policy():
    model = linear_model()
    env = Guard(gymnasium.make("safectl/SpeedLimit-v0"), model.safeguard)
    env.reset(seed=0)
    for action, status in ((0.5, Status.CORRECTED), (-0.5, Status.KEPT)):
        *_, info = env.step(np.array([action, 0.0], dtype=np.float32))
        assert info["status"] is status
        assert info["action_executed"][0] <= 0.0


@pytest.mark.parametrize("store", ["proposal", "executed"])
def test_the_buffer_holds_what_the_switch_says(store):
    model = linear_model(store)
    model.learn(200)
    buffer = model.rollout_buffer
    observation, action, log_prob = (
        torch.as_tensor(rows.reshape(200, -1))
        for rows in (buffer.observations, buffer.actions, buffer.log_probs)
    )
    assert bool((action[:, 0] > 0.0).any()) == (store == "proposal")
    assert model.tally.corrected > 20
    # The policy has moved in one epoch; that of the rollout gave the stored probabilities.
    fresh = linear_model(store)
    _, expected, _ = fresh.policy.evaluate_actions(observation, action)
    torch.testing.assert_close(log_prob.flatten(), expected.detach(), rtol=1e-4, atol=1e-4)


def test_a_saved_trainer_acts_as_before(tmp_path):
    model = linear_model().learn(400)
    model.save(tmp_path / "model.zip")
    loaded = ACSPPO.load(tmp_path / "model.zip", env=speed_limit())
    assert loaded.constraint == model.constraint
    assert loaded.bound == model.bound
    observation = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
    expected, _ = model.predict(observation, deterministic=True)
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], expected)
    loaded.learn(200, reset_num_timesteps=False)


def test_the_cost_advantage_is_that_of_the_library():
    side = CostSide(3, LagrangeSettings(), seed=0)
    generator = torch.Generator().manual_seed(1)
    observation = torch.randn(30, 2, 3, generator=generator)
    cost = (torch.rand(30, 2, generator=generator) < 0.3).float()
    end = torch.rand(30, 2, generator=generator) < 0.1
    last = torch.randn(2, 3, generator=generator)
    still = torch.zeros_like(end)
    rollout = Rollout(observation, observation, cost, end, still, torch.zeros(0, 3), last)
    advantage, target = side.advantage(rollout)
    buffer = RolloutBuffer(30, Box(-1, 1, (3,)), Box(-1, 1, (1,)), "cpu", 0.95, 0.99, 2)
    buffer.rewards[:] = cost.numpy()
    with torch.no_grad():
        buffer.values[:] = side.value(observation.flatten(0, 1)).reshape(30, 2).numpy()
        buffer.episode_starts[1:] = end[:-1].numpy()
        buffer.compute_returns_and_advantage(side.value(last).flatten(), end[-1].numpy())
    np.testing.assert_allclose(advantage.numpy(), buffer.advantages, atol=1e-5)
    np.testing.assert_allclose(target.numpy(), buffer.returns, atol=1e-5)


def test_an_episode_that_runs_out_of_time_is_bootstrapped():
    side = CostSide(2, LagrangeSettings(), seed=0)
    end, final = torch.tensor([[True]]), torch.tensor([[0.5, -0.5]])
    shape = (torch.zeros(1, 1, 2), torch.zeros(1, 1, 1), torch.zeros(1, 1))
    for timeout in (True, False):
        finals = final[: int(timeout)]
        rollout = Rollout(*shape, end, torch.tensor([[timeout]]), finals, torch.zeros(1, 2))
        _, target = side.advantage(rollout)
        expected = 0.99 * float(side.value(final).detach()) if timeout else 0.0
        assert float(target) == pytest.approx(expected, abs=1e-6)


def test_the_multiplier_follows_the_limit_and_is_never_negative():
    side = CostSide(2, LagrangeSettings(limit=5.0, initial=0.1), seed=0)
    side.climb(torch.tensor([9.0, 3.0]))  # mean 6: above the limit
    assert side.multiplier.item() == pytest.approx(0.1 + 0.035, abs=1e-6)
    side.climb(torch.zeros(0))  # no episode ended: no change
    assert side.multiplier.item() == pytest.approx(0.1 + 0.035, abs=1e-6)
    for _ in range(20):
        side.climb(torch.tensor([0.0]))
    assert side.multiplier.item() == 0.0


def test_the_mixed_advantage_is_the_standardised_reward_less_the_centred_cost():
    mixed = mixed_advantage(np.array([0.0, 4.0]), np.array([1.0, 3.0]), 3.0)
    # Half a unit up and down: a quarter of (-1, 1) less three times (-1, 1).
    np.testing.assert_allclose(mixed, [0.5, -0.5], atol=1e-6)


@pytest.mark.parametrize("kind", [PPOLag, TRPOLag])
def test_lagrangian_trainers_learn_and_are_saved(kind, tmp_path):
    settings = LagrangeSettings(limit=0.0, iterations=0)
    model = kind("MlpPolicy", speed_limit(), constraint=settings, **SMALL)
    model.learn(200)
    model.save(tmp_path / "model.zip")
    loaded = kind.load(tmp_path / "model.zip", env=speed_limit())
    assert loaded.constraint == settings
    assert loaded.side.multiplier.item() == model.side.multiplier.item()
    loaded.learn(200, reset_num_timesteps=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OnPolicySettings(eps_floor=0.0),
        lambda: OnPolicySettings(reward_penalty=-1.0),
        lambda: SafetySettings(horizon=0),
        lambda: LagrangeSettings(limit=-1.0),
        lambda: SafetySettings(safety_iterations=-1),
        lambda: LagrangeSettings(learning_rate=0.0),
        lambda: LagrangeSettings(discount=5.0),
        lambda: LagrangeSettings(gae_lambda=-3.0),
        lambda: LagrangeSettings(iterations=-1),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(RangeError):
        make()

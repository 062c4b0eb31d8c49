"""The trainers against the library's, their executed actions, files and refusals."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from wall import SMALL, Wall, constraint, quick

from safectl.errors import ConfigError, RangeError
from safectl.safeguards.correction import CorrectionOptions
from safectl.safeguards.cost_critic import ChanceBound
from safectl.types import Safeguard, Status
from safectl_agents.acs.collect import ConstraintSettings
from safectl_agents.acs.linear_layer import LinearLayerSettings
from safectl_agents.acs.lower import Actors, Proposed, Sizes
from safectl_agents.acs.off_policy import defaults
from safectl_agents.acs.projection import ProjectionSettings
from safectl_agents.acs.recovery import RecoverySettings
from safectl_agents.acs.sac import ACSSAC
from safectl_agents.acs.safeguard import safeguard_of
from safectl_agents.acs.td3 import ACSTD3
from safectl_agents.acs.unguarded import UnguardedSettings
from safectl_envs import Guard

OFF = ProjectionSettings(ChanceBound(tolerance=10.0), critic=SMALL)
TIGHT = ProjectionSettings(ChanceBound(tolerance=1e-3, recovery_rate=1.0), critic=SMALL)
LAYERS = {
    "acs": ProjectionSettings(critic=SMALL),
    "newton": ProjectionSettings(correction=CorrectionOptions("newton"), critic=SMALL),
    "lagrange": ProjectionSettings(project=False, penalty="lagrange", critic=SMALL),
    "linear": LinearLayerSettings(hidden=(16,)),
    "recovery": RecoverySettings(critic=SMALL),
    "unguarded": UnguardedSettings(),
}


@pytest.mark.parametrize(("ours", "theirs"), [(ACSTD3, TD3), (ACSSAC, SAC)])
def test_without_a_binding_bound_the_weights_are_those_of_the_library_bit_for_bit(ours, theirs):
    noise = {"action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.1))}
    options = {**defaults(), **quick(), **(noise if theirs is TD3 else {})}
    plain = theirs("MlpPolicy", Wall(), seed=3, **options).learn(80)
    guarded = ours("MlpPolicy", Wall(), constraint=constraint(OFF), seed=3, **quick()).learn(80)
    for name, weight in plain.policy.state_dict().items():
        assert torch.equal(weight, guarded.policy.state_dict()[name]), name
    assert guarded.tally.corrected == 0


def test_a_binding_bound_changes_what_is_executed_and_both_actions_are_stored():
    model = ACSTD3("MlpPolicy", Wall(), constraint=constraint(TIGHT), seed=0, **quick())
    model.learn(80)
    buffer = model.replay_buffer
    moved = np.abs(buffer.actions[:80] - buffer.proposals[:80]) > 0.0
    assert moved.sum() == model.tally.corrected > 0
    assert model.tally.steps == 80


def test_nothing_is_corrected_before_the_share_of_the_training_that_is_warm_up():
    settings = ConstraintSettings(TIGHT, warmup_ratio=0.5)
    collector = ACSTD3("MlpPolicy", Wall(), constraint=settings, **quick()).collector
    assert [collector.guards(step, 80) for step in (0, 39, 40, 79)] == [False, False, True, True]
    fixed = ACSTD3("MlpPolicy", Wall(), constraint=constraint(TIGHT), **quick()).collector
    assert fixed.guards(0, 80)


@pytest.mark.parametrize(("failure_costs", "expected"), [(True, 1.0), (False, 0.0)])
def test_a_failure_costs_on_demand_and_a_time_limit_never(failure_costs, expected):
    settings = constraint(failure_costs=failure_costs)
    model = ACSTD3("MlpPolicy", Wall(), constraint=settings, **quick())
    model.collector.execute(np.zeros((1, 1)), np.zeros((1, 1)), model.actors, guarded=False)
    for truncated, cost in ((False, expected), (True, 0.0)):
        infos = [{"cost": 0.0, "TimeLimit.truncated": truncated}]
        model.collector.annotate(infos, np.array([True]))
        assert infos[0]["acs_cost"] == cost
    assert model.tally.violations == 0


def test_the_cost_of_the_step_before_is_forgotten_where_an_episode_begins():
    model = ACSTD3("MlpPolicy", Wall(), constraint=constraint(), **quick())
    model.collector.execute(np.zeros((1, 1)), np.zeros((1, 1)), model.actors, guarded=False)
    seen = []
    for cost, done in ((1.0, False), (1.0, True), (0.0, False)):
        infos = [{"cost": cost, "TimeLimit.truncated": True}]
        model.collector.annotate(infos, np.array([done]))
        seen.append(infos[0]["acs_cost_before"])
    assert seen == [0.0, 1.0, 0.0]


def test_the_cost_may_come_from_a_function():
    model = ACSTD3(
        "MlpPolicy",
        Wall(has_cost=False),
        constraint=constraint(),
        cost=lambda _: 1.0,
        seed=0,
        **quick(),
    )
    assert model.learn(30).tally.violations == 30


def test_an_environment_without_a_cost_is_refused_with_advice():
    model = ACSTD3("MlpPolicy", Wall(has_cost=False), constraint=constraint(), **quick())
    with pytest.raises(ConfigError, match="cost=lambda info"):
        model.learn(10)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_saved_model_proposes_and_corrects_as_before(tmp_path, layer):
    model = ACSTD3("MlpPolicy", Wall(limit=2.0), constraint=constraint(layer), seed=0, **quick())
    model.learn(60)
    model.save(tmp_path / "model.zip")
    again = ACSTD3.load(tmp_path / "model.zip")
    observations = np.linspace(-1.0, 2.0, 7, dtype=np.float32).reshape(-1, 1)
    actions, _ = model.predict(observations, deterministic=True)
    assert actions.shape == (7, 1)
    assert np.all(np.abs(actions) <= 2.0)
    assert np.array_equal(actions, again.predict(observations, deterministic=True)[0])
    single, _ = model.predict(observations[3], deterministic=True)
    assert single == pytest.approx(actions[3], abs=1e-5)


def test_a_loaded_model_trains_on_in_several_environments(tmp_path):
    model = ACSSAC(
        "MlpPolicy", DummyVecEnv([Wall, Wall]), constraint=constraint(), seed=0, **quick()
    )
    model.learn(60)
    model.save(tmp_path / "model.zip")
    again = ACSSAC.load(tmp_path / "model.zip", env=DummyVecEnv([Wall, Wall]))
    assert again.learn(60).num_timesteps == 60


PLANE = Box(-5.0, 5.0, (1,), np.float32)


def plane_layer(settings):
    """Return a lower layer for two actions and a policy that rests."""
    torch.manual_seed(0)
    layer = settings.build(Sizes(1, 2, torch.device("cpu")))

    def rest(observation):
        return torch.zeros(len(observation), 2)

    return layer, Actors(rest, rest)


@pytest.mark.parametrize("mode", ["gradient", "newton", "bfgs"])
@pytest.mark.parametrize("half", [0.5, 4.0])
def test_the_safeguard_of_two_actions_corrects_as_the_lower_layer_does(mode, half):
    bound = ChanceBound(tolerance=0.01, recovery_rate=1.0)
    options = CorrectionOptions(mode, iterations=5)
    layer, actors = plane_layer(ProjectionSettings(bound, correction=options, critic=SMALL))
    middle = torch.tensor([0.0, 1.0])
    box = Box((middle - half).numpy(), (middle + half).numpy())
    generator = torch.Generator().manual_seed(1)
    seen = 4.0 * torch.rand(50, 1, generator=generator) - 2.0
    proposed = 2.0 * torch.rand(50, 2, generator=generator) - 1.0
    theirs = layer.correct(Proposed(seen, proposed, torch.zeros(50, 1)), actors)
    ours = safeguard_of(layer, actors, PLANE, box).filter(seen, middle + half * proposed)
    assert (theirs.iterations > 1).any()
    torch.testing.assert_close(
        ours.action, middle + half * theirs.action, atol=1e-4 * half, rtol=0.0
    )


def test_a_safeguard_of_actions_of_unequal_widths_is_refused():
    layer, actors = plane_layer(TIGHT)
    box = Box(np.array([-1.0, -10.0]), np.array([1.0, 10.0]), dtype=np.float64)
    with pytest.raises(ConfigError, match="RescaleAction"):
        safeguard_of(layer, actors, PLANE, box)


@pytest.mark.parametrize("kind", [ACSTD3, ACSSAC])
def test_all_rows_that_the_layer_learns_from_are_normalised_alike(kind, monkeypatch):
    env = VecNormalize(DummyVecEnv([Wall]), norm_reward=False)
    env.obs_rms.mean, env.obs_rms.count = np.array([100.0]), 1e9
    settings = constraint(violating_share=0.5)
    model = kind("MlpPolicy", env, constraint=settings, cost=lambda _: 1.0, seed=0, **quick())
    seen = []
    update = model.lower.update
    monkeypatch.setattr(
        model.lower, "update", lambda batch, *rest: seen.append(batch) or update(batch, *rest)
    )
    model.learn(90)
    rows = torch.cat([batch.observations for batch in seen])
    assert rows.max() == -10.0  # (x - 100) / 1 is clipped there; x itself is between -5 and 5


def test_the_middle_of_the_limits_is_executed_where_the_critic_is_not_finite():
    layer, actors = plane_layer(TIGHT)
    with torch.no_grad():
        layer.learner.critic_target.heads[0][-1].bias.fill_(torch.nan)
    proposed = Proposed(torch.zeros(3, 1), torch.full((3, 2), 0.7), torch.zeros(3, 1))
    found = layer.correct(proposed, actors)
    assert (found.action == 0.0).all()
    assert found.residual.isinf().all()


def test_the_safeguard_alone_decides_as_the_model_does_and_guards_any_environment():
    model = ACSTD3("MlpPolicy", Wall(limit=2.0), constraint=constraint(TIGHT), seed=0, **quick())
    model.learn(60)
    safeguard = model.safeguard
    assert isinstance(safeguard, Safeguard)
    observations = np.linspace(-1.0, 2.0, 7, dtype=np.float32).reshape(-1, 1)
    proposals, _ = model.policy.predict(observations, deterministic=True)
    expected, _ = model.predict(observations, deterministic=True)
    decision = safeguard.filter(torch.tensor(observations), torch.tensor(proposals))
    assert decision.action.numpy() == pytest.approx(expected, abs=1e-4)
    env = Guard(Wall(limit=2.0), safeguard)
    env.reset(seed=0)
    info = env.step(np.array([2.0], np.float32))[4]
    assert info["status"] in set(Status)


def test_only_a_projection_stands_alone():
    model = ACSTD3("MlpPolicy", Wall(), constraint=constraint(UnguardedSettings()), **quick())
    with pytest.raises(ConfigError, match="Unguarded"):
        _ = model.safeguard


@pytest.mark.parametrize(
    "options",
    [
        {"warmup_ratio": 1.5},
        {"violating_share": 1.0},
        {"reward_penalty": -1.0},
        {"guard_from": -1},
    ],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(RangeError):
        ConstraintSettings(**options)


@pytest.mark.parametrize("kind", [ACSTD3, ACSSAC])
def test_the_policy_has_a_rate_of_its_own(kind):
    settings = constraint(actor_learning_rate=1e-5)
    model = kind("MlpPolicy", Wall(), constraint=settings, learning_rate=1e-3, **quick()).learn(30)
    rates = [part.optimizer.param_groups[0]["lr"] for part in (model.actor, model.critic)]
    assert rates == [1e-5, 1e-3]

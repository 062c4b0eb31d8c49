"""What each lower layer executes, adds to the loss and learns, against values found by hand."""

import pytest
import torch
from stable_baselines3.common.utils import set_random_seed
from wall import Wall, constraint, quick

from safectl.safeguards.cost_critic import ChanceBound
from safectl_agents.acs.critic import CriticSettings
from safectl_agents.acs.linear_layer import LinearLayerSettings
from safectl_agents.acs.lower import Actors, Proposed, Sizes
from safectl_agents.acs.projection import ProjectionSettings
from safectl_agents.acs.recovery import RecoverySettings
from safectl_agents.acs.replay import CostSamples
from safectl_agents.acs.td3 import ACSTD3
from safectl_agents.acs.unguarded import UnguardedSettings

SIZES = Sizes(1, 1, torch.device("cpu"))
LINEAR = CriticSettings(hidden=())
FIXED = ChanceBound(tolerance=0.1, recovery_rate=1.0)
NONE = torch.zeros(2, 1)
ACTION = torch.tensor([[0.6], [0.0]])
PROPOSED = Proposed(NONE, ACTION, NONE)
ACTORS = Actors(torch.zeros_like, torch.zeros_like)


def _cost_is_the_action(layer):
    """Set Q_c(s, a) = a in the critic and its slow copy."""
    for network in (layer.learner.critic, layer.learner.critic_target):
        with torch.no_grad():
            network.heads[0][0].weight.copy_(torch.tensor([[0.0, 1.0]]))
            network.heads[0][0].bias.zero_()
    return layer


def test_the_exact_penalty_is_kappa_times_the_mean_excess():
    layer = _cost_is_the_action(ProjectionSettings(FIXED, kappa=5.0, critic=LINEAR).build(SIZES))
    action = ACTION.clone().requires_grad_()
    penalty = layer.penalty(NONE, action)
    assert penalty.item() == pytest.approx(5.0 * (0.6 - 0.1) / 2.0)
    (gradient,) = torch.autograd.grad(penalty, action)
    assert gradient.flatten().tolist() == [2.5, 0.0]


def test_the_lagrangian_term_is_lambda_times_the_mean_excess_and_lambda_climbs_by_it():
    settings = ProjectionSettings(FIXED, penalty="lagrange", multiplier_rate=0.5, critic=LINEAR)
    layer = _cost_is_the_action(settings.build(SIZES))
    layer.multiplier.value.fill_(2.0)
    action = ACTION.clone().requires_grad_()
    term = layer.penalty(NONE, action)
    assert term.item() == pytest.approx(2.0 * (0.3 - 0.1))
    (gradient,) = torch.autograd.grad(term, action)
    assert gradient.flatten().tolist() == [1.0, 1.0]
    assert layer.multiplier.value.item() == pytest.approx(2.0 + 0.5 * 0.2)


def test_the_cost_critic_learns_from_the_executed_actions():
    layer = _cost_is_the_action(ProjectionSettings(FIXED, critic=LINEAR).build(SIZES))
    one = torch.ones(2, 1)
    batch = CostSamples(
        NONE, ACTION, NONE, one, NONE, None, proposals=-one, costs=one, costs_before=NONE
    )
    losses = layer.update(batch, NONE, ACTORS)
    assert losses["cost_critic_loss"] == pytest.approx((0.4**2 + 1.0**2) / 2.0)


@pytest.mark.parametrize(("corrected", "following"), [(False, 0.6), (True, 0.1)])
def test_the_target_follows_the_policy_or_what_the_safeguard_makes_of_it(corrected, following):
    settings = ProjectionSettings(FIXED, corrected_target=corrected, critic=LINEAR)
    layer = _cost_is_the_action(settings.build(SIZES))
    batch = CostSamples(NONE, NONE, NONE, NONE, NONE, None, NONE, NONE, NONE)
    losses = layer.update(batch, torch.full((2, 1), 0.6), ACTORS)
    assert losses["cost_critic_loss"] == pytest.approx((0.99 * following) ** 2, rel=1e-3)


@pytest.mark.parametrize(
    ("actions", "costs"), [((0.6, 0.05), (0.1, 0.05)), ((0.02, -0.3), (0.02, -0.3))]
)
def test_rows_within_the_bound_are_followed_as_they_are(actions, costs):
    settings = ProjectionSettings(FIXED, corrected_target=True, critic=LINEAR)
    layer = _cost_is_the_action(settings.build(SIZES))
    action = torch.tensor(actions)[:, None]
    followed = layer._followed(NONE, action)
    torch.testing.assert_close(followed, torch.tensor(costs)[:, None])


def test_the_recovery_policy_takes_over_where_the_risk_is_above_the_limit():
    layer = _cost_is_the_action(RecoverySettings(limit=0.1, critic=LINEAR).build(SIZES))
    with torch.no_grad():
        layer.actor[0].weight.zero_()
        layer.actor[0].bias.fill_(-20.0)  # tanh gives -1
    found = layer.correct(PROPOSED, ACTORS)
    assert found.action.flatten().tolist() == [-1.0, 0.0]
    assert found.iterations.tolist() == [True, False]
    assert found.residual.tolist() == [0.0, 0.0]


def test_the_linear_layer_projects_onto_its_predicted_limit():
    layer = LinearLayerSettings(limit=0.1, hidden=()).build(SIZES)
    with torch.no_grad():
        layer.gain[0].weight.zero_()
        layer.gain[0].bias.fill_(0.5)
    found = layer.correct(PROPOSED, ACTORS)
    # 0.5 a <= 0.1 from a = 0.6: lambda = (0.3 - 0.1) / 0.25 = 0.8, a - 0.8 * 0.5 = 0.2.
    torch.testing.assert_close(found.action, torch.tensor([[0.2], [0.0]]), rtol=0.0, atol=1e-6)


def test_a_layer_that_knows_no_number_does_not_let_the_proposal_pass():
    recovery = RecoverySettings(limit=0.1, critic=LINEAR).build(SIZES)
    linear = LinearLayerSettings(limit=0.1, hidden=()).build(SIZES)
    with torch.no_grad():
        recovery.actor[0].weight.zero_()
        recovery.actor[0].bias.fill_(-20.0)  # tanh gives -1
        recovery.learner.critic_target.heads[0][0].bias.fill_(torch.nan)
        linear.gain[0].bias.fill_(torch.nan)
    assert recovery.correct(PROPOSED, ACTORS).action.flatten().tolist() == [-1.0, -1.0]
    assert linear.correct(PROPOSED, ACTORS).action.flatten().tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("store", "read", "unread"),
    [("executed", "actions", "proposals"), ("proposal", "proposals", "actions")],
)
def test_the_reward_critics_learn_from_the_action_that_the_switch_names(store, read, unread):
    def loss(altered):
        settings = constraint(UnguardedSettings(), store=store)
        model = ACSTD3("MlpPolicy", Wall(), constraint=settings, seed=0, **quick()).learn(25)
        if altered:
            getattr(model.replay_buffer, altered)[:] = 0.5
        set_random_seed(0)
        model.train(1, 16)
        return model.logger.name_to_value["train/critic_loss"]

    assert loss(unread) == loss(None)
    assert loss(read) != loss(None)

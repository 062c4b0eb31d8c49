"""Targets, gradients and the standing of the learned cost-to-go."""

import pytest
import torch

from safectl.errors import RangeError
from safectl_agents.acs.critic import (
    CostLearner,
    CostNetwork,
    CriticSettings,
    PolicyCritic,
    cost_target,
)


def _column(*values):
    return torch.tensor(values).unsqueeze(1)


def test_first_hit_targets_stop_at_a_violation_and_at_a_failure_but_not_at_a_time_limit():
    cost, done = _column(0.0, 1.0, 0.0), _column(0.0, 0.0, 1.0)
    following = _column(0.5, 0.5, 0.5)
    target = cost_target(cost, done, following, target="first_hit", discount=0.9)
    assert torch.allclose(target, _column(0.45, 1.0, 0.0))


def test_first_hit_targets_stay_probabilities_where_the_critic_does_not():
    following = _column(7.0, -3.0)
    target = cost_target(
        _column(0.0, 0.0), _column(0.0, 0.0), following, target="first_hit", discount=0.9
    )
    assert torch.allclose(target, _column(0.9, 0.0))


def test_sum_targets_go_on_counting_after_a_violation():
    cost, done = _column(0.0, 1.0, 1.0), _column(0.0, 0.0, 1.0)
    target = cost_target(cost, done, _column(2.0, 2.0, 2.0), target="sum", discount=0.5)
    assert torch.allclose(target, _column(1.0, 2.0, 1.0))


@pytest.mark.parametrize("heads", [1, 3])
def test_the_closed_form_gradient_is_that_of_autograd(heads):
    torch.manual_seed(0)
    network = CostNetwork(3, 2, (8, 8), heads).double()
    observation = torch.randn(20, 3, dtype=torch.float64)
    action = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    value = network(observation, action)
    (gradient,) = torch.autograd.grad(value.sum(), action)
    slope = network.slope(observation, action.detach())
    assert torch.allclose(slope.score, value.detach(), atol=1e-12)
    assert torch.allclose(slope.gradient.squeeze(1), gradient, atol=1e-12)


def test_a_critic_in_units_of_the_action_agrees_with_differences():
    torch.manual_seed(0)
    network = CostNetwork(1, 2, (8,)).double()
    middle, half = torch.tensor([1.0, -2.0]).double(), torch.tensor([3.0, 0.5]).double()
    critic = PolicyCritic(network, lambda o: o.new_zeros(len(o), 2), middle, half)
    observation, action = torch.zeros(1, 1).double(), torch.tensor([[0.3, -2.1]]).double()
    slope, again = critic.slope(observation, action), critic.slope_at(observation)(action)
    for ours, theirs in zip(again, slope, strict=True):  # one row, in NumPy
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-12)
    step = 1e-6
    for index in range(2):
        shift = torch.zeros(1, 2).double()
        shift[0, index] = step
        ends = [critic.cost(observation, action + sign * shift) for sign in (1.0, -1.0)]
        difference = (ends[0] - ends[1]).item() / (2.0 * step)
        assert slope.gradient[0, 0, index].item() == pytest.approx(difference, abs=1e-6)


def test_a_learner_fits_its_targets_and_its_slow_copy_follows():
    torch.manual_seed(0)
    learner = CostLearner(1, 1, CriticSettings(hidden=(16,), learning_rate=1e-2), "cpu")
    before = [weight.clone() for weight in learner.critic_target.parameters()]
    observation = torch.rand(64, 1, generator=torch.Generator().manual_seed(0))
    target = (observation > 0.5).float()
    losses = [learner.update(observation, observation, target) for _ in range(200)]
    assert losses[-1] < 0.2 * losses[0]
    learner.track()
    pairs = zip(
        before, learner.critic.parameters(), learner.critic_target.parameters(), strict=True
    )
    for old, new, slow in pairs:
        assert torch.allclose(slow, 0.995 * old + 0.005 * new)


@pytest.mark.parametrize(
    "options",
    [{"discount": 0.0}, {"tau": 1.5}, {"learning_rate": 0.0}, {"heads": 0}, {"hidden": (0,)}],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(RangeError):
        CriticSettings(**options)

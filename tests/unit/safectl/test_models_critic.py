import pytest
import torch
from torch import Tensor

from safectl.models import LearnedCost, LearnedSafety, ScoreNetwork, budget_labels, horizon_labels
from safectl.models.critic import Combination
from safectl.safeguards import ACS, Brake, ChanceBound, CostCritic, RowCritic, ScoredCritic
from safectl.safeguards.acs import ACSOptions
from safectl.spec import Signal, Spec
from safectl.types import Status
from tests.finite_differences import TOLERANCE, jacobian

SPEC = Spec(
    observation=tuple(Signal(f"x{index}", "m", -9.0, 9.0) for index in range(3)),
    action=tuple(Signal(f"u{index}", "m", -1.0, 1.0) for index in range(2)),
    period=0.1,
)


def network(
    nu: int, seed: int, m: int = 1, *, members: int = 1, kind: Combination = "mean"
) -> ScoreNetwork:
    generator = torch.Generator().manual_seed(seed)
    return ScoreNetwork(
        3, nu, m, hidden=(16, 16), members=members, combination=kind, generator=generator
    ).double()


def rows(count: int, width: int, seed: int = 9) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("kind", ["mean", "max"])
@pytest.mark.parametrize("members", [1, 3])
def test_the_slope_is_the_gradient_of_the_score(kind: Combination, members: int) -> None:
    net = network(2, 1, 2, members=members, kind=kind)
    observation, action = rows(5, 3), rows(5, 2, 10)
    slope = net.slope_at(observation)(action)
    torch.testing.assert_close(slope.score, net(observation, action).detach())
    numeric = jacobian(lambda u: net(observation, u), action)
    torch.testing.assert_close(slope.gradient, numeric, atol=TOLERANCE, rtol=0.0)


def test_the_maximum_of_an_ensemble_is_the_cautious_one() -> None:
    observation, action = rows(50, 3), rows(50, 2, 10)
    mean, largest = (network(2, 4, members=5, kind=kind) for kind in ("mean", "max"))
    assert (largest(observation, action) > mean(observation, action)).all()
    assert torch.equal(largest(observation, action), largest.each(observation, action).amax(0))


@pytest.mark.parametrize("probability", [True, False])
def test_scores_order_actions_as_costs_do(probability: bool) -> None:
    critic = LearnedCost(network(0, 1), network(2, 2), is_probability=probability)
    assert isinstance(critic, ScoredCritic)
    observation, action = rows(200, 3), rows(200, 2, 10)
    cost, threshold = critic.cost(observation, action), torch.full((200, 1), 0.5).double()
    score = critic.slope(observation, action).score
    assert torch.equal(cost <= threshold, score <= critic.scale(threshold))
    torch.testing.assert_close(critic.scale(cost).detach(), score)


def test_a_threshold_above_one_admits_every_probability() -> None:
    critic = LearnedCost(network(0, 1), network(2, 2))
    scale = critic.scale(torch.tensor([[0.0, 0.5, 1.0, 3.7]]))
    assert scale.isfinite().all()
    assert scale[0, 1] == 0.0
    assert (scale[0, 2:] > 1e30).all()


def test_a_saturated_critic_still_shows_the_way() -> None:
    net = ScoreNetwork(3, 2, hidden=(), generator=torch.Generator())
    with torch.no_grad():
        net.members[0][0].weight.copy_(torch.tensor([[0.0, 0.0, 0.0, -30.0, 0.0]]))
        net.members[0][0].bias.fill_(25.0)
    critic = LearnedCost(ScoreNetwork(3, 0, generator=torch.Generator()), net)
    options = ACSOptions(ChanceBound(0.5, 1.0))
    observation, action = rows(4, 3).float(), torch.zeros(4, 2)
    found, stuck = (
        ACS(one, fallback=Brake(SPEC), options=options).filter(observation, action)
        for one in (critic, Unscaled(critic))
    )
    assert (found.certificate.status == Status.CORRECTED).all()
    torch.testing.assert_close(found.action[:, 0], torch.full((4,), 25.0 / 30.0), atol=1e-4, rtol=0)
    assert (stuck.certificate.status == Status.FALLBACK).all()
    assert torch.equal(stuck.action, action)


class Unscaled:
    """The same critic without its scale."""

    def __init__(self, critic: CostCritic) -> None:
        self.value, self.cost = critic.value, critic.cost


def test_the_safety_form_is_the_cost_form() -> None:
    critic = LearnedSafety(network(0, 1), network(2, 2))
    observation, action = rows(20, 3), rows(20, 2, 10)
    safety = critic.safety(observation).sigmoid()
    torch.testing.assert_close(critic.value(observation), 1.0 - safety)
    advantage = critic.advantage(observation, action)
    torch.testing.assert_close(critic.cost(observation, action), 1.0 - safety - advantage)
    slope = critic.slope(observation, action)
    torch.testing.assert_close(
        slope.gradient, -critic.advantage.slope_at(observation)(action).gradient
    )


def test_the_critic_of_a_row_computes_its_value_once() -> None:
    critic = LearnedSafety(network(0, 1), network(2, 2))
    observation, action = rows(1, 3), rows(1, 2, 10)
    row = critic.for_row(observation)
    assert isinstance(critic, RowCritic)
    assert torch.equal(row.value(observation), critic.value(observation))
    assert torch.equal(row.value(observation.expand(3, 3)), row.known.expand(3, 1))
    assert torch.equal(row.cost(observation, action), critic.cost(observation, action))
    slopes = row.slope(observation, action), critic.slope(observation, action)
    assert all(torch.equal(*pair) for pair in zip(*slopes, strict=True))


COST = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
END = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 0], [0, 1], [0, 0]]).bool()
CUT = torch.tensor([0.7, 0.6])


def test_budget_labels_mark_whole_episodes_and_bootstrap_at_the_cut() -> None:
    strict = budget_labels(COST, END, CUT, budget=0.0)
    assert torch.equal(strict[:, 0], torch.tensor([0.0, 0.0, 0.0, 0.0, 0.7, 0.7]))
    assert torch.equal(strict[:, 1], torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.6]))
    loose = budget_labels(COST, END, CUT, budget=2.0)
    assert torch.equal(loose[:, 0], torch.tensor([1.0, 1.0, 1.0, 1.0, 0.7, 0.7]))
    assert torch.equal(loose[:, 1], torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.6]))


def test_a_budget_that_was_spent_before_counts() -> None:
    spent = torch.tensor([1.0, 0.0])
    labels = budget_labels(COST, END, CUT, budget=2.0, spent=spent)
    assert torch.equal(labels[:, 0], torch.tensor([0.0, 0.0, 0.0, 0.0, 0.7, 0.7]))
    none = torch.zeros_like(END)
    exceeded = budget_labels(COST, none, CUT, budget=1.0)
    assert (exceeded == 0.0).all()


def test_horizon_labels_look_only_ahead() -> None:
    rest = horizon_labels(COST, END, CUT)
    assert torch.equal(rest[:, 0], torch.tensor([0.0, 0.0, 1.0, 1.0, 0.7, 0.7]))
    assert torch.equal(rest[:, 1], torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.6]))
    short = horizon_labels(COST, END, CUT, horizon=2)
    assert torch.equal(short[:, 0], torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.7]))
    assert torch.equal(short[:, 1], torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.6]))


def test_the_sum_of_differences_telescopes_only_without_a_discount() -> None:
    safety = 0.9 + 0.02 * rows(1000, 1)[:, 0]
    label = 1.0
    following = torch.cat([safety[1:], torch.tensor([label]).double()])

    def advantage(gamma: float) -> Tensor:
        return (gamma * following - safety).flip(0).cumsum(0).flip(0)

    torch.testing.assert_close(advantage(1.0), label - safety)
    drift = advantage(0.99)[0] - (label - safety[0])
    assert drift.item() == pytest.approx(-0.01 * 1000 * 0.9, abs=0.1)

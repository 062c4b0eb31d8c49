"""Losses of the baselines against values worked out by hand, and trainings of a few updates."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from safectl.errors import FileFormatError
from safectl.seed import torch_generator
from safectl_agents.fb.baselines import cql, gc_iql, sf_lap, td3
from safectl_agents.fb.baselines.per_task import PerTask, make_cql
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.episodes import Transitions
from safectl_agents.fb.methods import METHODS
from safectl_agents.fb.settings import FBConfig

SMALL = FBConfig(nz=4, hidden=8, embedding=8, backward_hidden=8, batch=8, labels=20)


def make_transitions(rows=40, *, physics=True) -> Transitions:
    """Return rows of two episodes of the maze that leave every third step out."""
    random = np.random.default_rng(0)
    here, there = random.uniform(-0.2, 0.2, (2, rows, 4)).astype(np.float32)
    number = np.arange(3 * rows)[np.arange(3 * rows) % 3 != 0][:rows]
    last = np.where(number < rows, rows - 1, 3 * rows - 1)
    return Transitions(
        here,
        random.uniform(-1.0, 1.0, (rows, 2)).astype(np.float32),
        there,
        np.ones(rows, np.float32),
        there.astype(np.float64) if physics else None,
        np.stack([number, last], 1),
    )


def test_a_critic_aims_at_the_smaller_head_and_stops_at_a_termination():
    q = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    following = torch.tensor([[10.0, 10.0], [20.0, 5.0]])
    loss = td3.critic_loss(q, torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0]), following)
    assert loss.item() == pytest.approx((25.0 + 0.0) / 2 + (9.0 + 0.0) / 2)


def test_behaviour_cloning_weighs_the_value_by_its_size():
    q, mean = torch.tensor([4.0, -2.0]), torch.tensor([[0.5], [0.0]])
    action = torch.tensor([[0.0], [1.0]])
    assert td3.actor_loss(q, mean, action, None).item() == -1.0
    assert td3.actor_loss(q, mean, action, 3.0).item() == pytest.approx(-1.0 + 0.625)


def test_the_penalty_is_the_logarithm_of_the_count_where_all_actions_are_equal():
    data = torch.randn(2, 5, generator=torch_generator(0, "q"))
    candidates = data[:, None].expand(2, 10, 5)
    penalty = cql.conservative_penalty(candidates, data)
    assert penalty.item() == pytest.approx(2.0 * math.log(10.0), rel=1e-5)


def test_the_density_of_a_squashed_sample_is_that_of_torch():
    mean, log_deviation, normal = torch.randn(3, 6, 2, generator=torch_generator(0, "squash"))
    action, log_density = cql.squashed(mean, log_deviation, normal)
    gaussian = Independent(Normal(mean, log_deviation.exp()), 1)
    expected = TransformedDistribution(gaussian, [TanhTransform(cache_size=1)])
    assert torch.allclose(log_density, expected.log_prob(action), atol=1e-2)
    assert torch.allclose(action, (mean + log_deviation.exp() * normal).tanh())


def test_the_temperature_rises_while_the_entropy_is_below_its_aim():
    log_temperature = torch.zeros((), requires_grad=True)
    low_entropy = torch.tensor([3.0, 5.0])
    (slope,) = torch.autograd.grad(
        cql.temperature_loss(log_temperature, low_entropy, -2.0), log_temperature
    )
    assert slope.item() == pytest.approx(-2.0)


def test_an_expectile_weighs_what_is_too_low_more():
    value, aim = torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])
    loss = gc_iql.expectile_loss(value, aim, aim[0])
    assert loss.item() == pytest.approx((0.7 + 0.3) / 2)


def test_goals_stay_in_the_trajectory_and_are_drawn_in_the_given_shares():
    place = torch.from_numpy(make_transitions(4000).place)
    rows = torch.arange(4000)
    goals, reached = gc_iql.choose_goals(rows, place, torch_generator(0, "goals"))
    assert torch.equal(place[goals, 1], place[rows, 1])
    assert torch.equal(reached, goals == rows)
    assert 0.19 < float(reached.double().mean()) < 0.23
    ahead = (place[goals, 0] - place[rows, 0])[~reached].double()
    assert float((ahead > 0).double().mean()) > 0.7
    assert 60.0 < float(ahead[(ahead > 0) & (ahead < 1000)].median()) < 160.0


def test_slow_features_cost_nothing_beside_their_orthonormality():
    features = torch.eye(4) * 2.0
    still = sf_lap.feature_loss(features, features)
    assert still.item() == pytest.approx(-8.0)
    assert sf_lap.feature_loss(features, features + 1.0).item() == pytest.approx(-7.0)


def test_least_squares_finds_the_task_of_a_reward_that_the_features_hold():
    features = torch.randn(50, 4, generator=torch_generator(0, "features"))
    z = torch.tensor([1.0, -1.0, 1.0, 1.0])
    assert torch.allclose(sf_lap.infer_task(features, 3.0 * features @ z), z, atol=1e-5)
    assert not sf_lap.infer_task(features, torch.zeros(50)).any()


def test_successor_features_aim_at_reward_and_smaller_head():
    psi, following = torch.ones(2, 1, 2), torch.tensor([[[4.0, 0.0]], [[2.0, 0.0]]])
    task, features = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 0.0]])
    loss = sf_lap.successor_loss(psi, following, features, task, torch.tensor([0.5]))
    assert loss.item() == pytest.approx(2.0 * (2.0 - (3.0 + 0.5 * 2.0)) ** 2)


@pytest.mark.parametrize("name", ["sf-lap", "gc-iql", "cql", "td3", "td3-bc"])
def test_a_saved_baseline_goes_on_bit_for_bit_and_acts_within_its_limits(name):
    domain, transitions = Domain("point_mass_maze"), make_transitions()
    whole = METHODS[name].make(SMALL, domain, transitions)
    logged = [whole.update(step) for step in range(3)][-1]
    assert all(bool(torch.isfinite(value)) for value in logged.values())
    second = METHODS[name].make(SMALL, domain, transitions)
    first_policy = second.policies().act(torch.zeros(4, 1, 4))
    second.update(0)
    third = METHODS[name].make(FBConfig(**{**_fields(SMALL), "seed": 1}), domain, transitions)
    saved = {key: value.clone() for key, value in second.state().items()}
    third.load_state(saved)
    third._config = SMALL
    for step in (1, 2):
        third.update(step)
    expected = whole.state()
    assert expected.keys() == third.state().keys()
    assert all(torch.equal(value, expected[key]) for key, value in third.state().items())
    policies = whole.policies()
    assert policies.tasks == tuple(domain.facts.tasks)
    with torch.no_grad():
        action = policies.act(torch.zeros(4, 1, 4))
    assert action.shape == (4, 1, 2)
    assert float(action.abs().max()) <= 1.0
    assert not torch.equal(action, first_policy)


def _fields(config):
    return {name: getattr(config, name) for name in config.__slots__}


def test_a_method_that_needs_rewards_names_data_that_cannot_be_labelled():
    data = make_transitions(physics=False)
    with pytest.raises(FileFormatError, match="hold no states"):
        PerTask(make_cql, SMALL, Domain("point_mass_maze"), data)


def test_trajectories_are_asked_for():
    with pytest.raises(FileFormatError, match="which episode"):
        gc_iql.GCIQL(SMALL, Domain("point_mass_maze"), make_transitions()._replace(place=None))

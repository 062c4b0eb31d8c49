from dataclasses import replace

import pytest
import torch

from safectl.errors import RangeError, ShapeError
from safectl.models import ForwardBackward, Sizes
from safectl.models.networks import noisy, on_sphere
from safectl.types import WorldModel


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_networks_of_walker_have_the_published_numbers_of_parameters():
    model = ForwardBackward(Sizes(nx=24, nu=6))
    assert count(model.forward) == 7_558_244
    assert count(model.backward) == 150_834
    assert count(model.actor) == 5_358_598


def test_one_seed_gives_one_model_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    sizes = Sizes(nx=3, nu=2, nz=4, hidden=8, embedding=8, backward_hidden=8)
    first, again, other = (ForwardBackward(sizes, seed=seed).networks for seed in (0, 0, 1))
    weights = [torch.nn.utils.parameters_to_vector(m.parameters()) for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_candidates_that_share_the_part_of_the_task_give_the_plain_forward():
    sizes = Sizes(nx=3, nu=2, nz=4, hidden=8, embedding=8, backward_hidden=8)
    forward = ForwardBackward(sizes).forward
    observation, task, actions = torch.randn(5, 3), torch.randn(5, 4), torch.randn(6, 5, 2)
    shared = forward.at(observation.expand(6, 5, 3), actions, forward.task_part(observation, task))
    plain = torch.stack([forward(observation, action, task) for action in actions], 1)
    assert torch.allclose(shared, plain, atol=1e-6)


def test_backward_lies_on_the_sphere_and_zero_stays_zero():
    sizes = Sizes(nx=3, nu=2, nz=4, hidden=8, embedding=8, backward_hidden=8)
    radius = ForwardBackward(sizes).backward(torch.randn(5, 3)).norm(dim=-1)
    assert torch.allclose(radius, torch.full((5,), 2.0))
    assert torch.equal(on_sphere(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_scaled_observations_are_those_divided_and_fold_into_the_weights():
    sizes = Sizes(nx=3, nu=2, nz=4, hidden=8, embedding=8, backward_hidden=8)
    scale = (0.1, 2.0, 30.0)
    model = ForwardBackward(replace(sizes, observation_scale=scale))
    plain, folded = ForwardBackward(sizes), model.unscaled()
    observation, task, action = torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 2)
    for one, seen in ((plain, observation / torch.tensor(scale)), (folded, observation)):
        pairs = (
            (model.forward(observation, action, task), one.forward(seen, action, task)),
            (model.backward(observation), one.backward(seen)),
            (model.actor(observation, task), one.actor(seen, task)),
        )
        assert all(torch.allclose(*pair, atol=1e-5) for pair in pairs)
    assert folded.sizes == sizes
    assert model.networks.state_dict().keys() == plain.networks.state_dict().keys()


def test_noise_leaves_the_gradient_of_the_mean_where_the_action_is_cut():
    mean = torch.tensor([[0.95, -0.2]], requires_grad=True)
    action = noisy(mean, torch.tensor([[0.3, 0.1]]))
    action.sum().backward()
    assert action[0, 0] < 1.0
    assert mean.grad is not None
    assert torch.equal(mean.grad, torch.ones(1, 2))


def test_the_model_is_a_world_model_and_refuses_sizes_below_one():
    assert isinstance(ForwardBackward(Sizes(nx=1, nu=1, nz=1, hidden=1, embedding=1)), WorldModel)
    with pytest.raises(RangeError, match="hidden"):
        Sizes(nx=1, nu=1, hidden=0)
    with pytest.raises(RangeError, match="observation_scale"):
        Sizes(nx=1, nu=1, observation_scale=(0.0,))
    with pytest.raises(ShapeError, match="observation_scale"):
        Sizes(nx=1, nu=1, observation_scale=(1.0, 1.0))

import pytest
import torch

from safectl.models.imitation import advantage_weights, imitation_loss, relative


def test_weights_grow_with_the_advantage_up_to_a_hundred():
    weights = advantage_weights(torch.tensor([-1.0, 0.0, 1.0, 50.0]), 0.5)
    expected = [0.1353353, 1.0, 7.3890561, 100.0]
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)


def test_no_scale_of_the_values_moves_a_relative_advantage():
    advantage = torch.tensor([-2.0, 0.0, 4.0])
    assert relative(advantage).tolist() == [-1.0, 0.0, 2.0]
    assert torch.allclose(relative(1e4 * advantage), relative(advantage))
    assert relative(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_the_loss_pulls_towards_the_better_of_two_actions():
    action, weight = torch.tensor([[0.0], [1.0]]), torch.tensor([1.0, 3.0])
    mean = torch.zeros(2, 1, requires_grad=True)
    shared = mean.mean().expand(2, 1)
    loss = imitation_loss(shared, action, weight)
    assert loss.item() == pytest.approx(0.75)
    (gradient,) = torch.autograd.grad(imitation_loss(0.75 + shared, action, weight), mean)
    assert gradient.abs().max() < 1e-6

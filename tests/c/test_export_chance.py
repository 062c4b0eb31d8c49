"""Correction along a critic's gradient: the numbers of the method, torch's gradient, equal C."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from safectl.errors import ShapeError, UnsupportedLayer
from safectl.export import (
    ChanceConstraint,
    Network,
    chance_constrained_program,
    interpret,
    verify,
)
from safectl.export.critic import Layer, room_and_gradient
from safectl.spec import Signal, Spec
from safectl.types import Status

GRADIENT_TOLERANCE = 1e-5
ACTION_TOLERANCE = 1e-4


def make_spec(nx, nu, bound=1.0):
    observation = tuple(Signal(f"x{i}", "1", -2.0, 2.0) for i in range(nx))
    return Spec(observation, tuple(Signal(f"u{i}", "1", -bound, bound) for i in range(nu)), 0.1)


def perceptron(sizes, activation, seed):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(outputs, inputs, generator=generator) / inputs**0.5)
            layer.bias.copy_(0.3 * torch.randn(outputs, generator=generator))
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def constant_network(nx, values):
    layer = nn.Linear(nx, len(values))
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor(values))
    return Network(nn.Sequential(layer))


@pytest.mark.parametrize(
    ("newton", "step", "iterations", "expected"),
    [(True, 1.0, 1, (0.48, -0.64)), (False, 0.05, 20, (0.4875, -0.65))],
)
def test_a_linear_critic_gives_the_known_actions(newton, step, iterations, expected):
    """g = -0.5 + 0.3 u1 - 0.4 u2 from (0, 0) to g >= -0.1; 13 steps of 0.05 in the second case."""
    critic = nn.Sequential(nn.Linear(3, 1))
    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[0.0, 0.3, -0.4]]))
        critic[0].bias.copy_(torch.tensor([-0.5]))
    constraint = ChanceConstraint(
        critic, constant_network(1, [-0.1]), newton=newton, step=step, iterations=iterations
    )
    spec = make_spec(1, 2, bound=10.0)
    program = chance_constrained_program("p", spec, constant_network(1, [0.0, 0.0]), constraint)
    steps = interpret(program, np.zeros((1, 1), np.float32))
    assert np.allclose(steps.action[0], expected, atol=1e-6)
    # The exact root may round to either side of the bound; the gradient steps pass it.
    assert abs(steps.margin[0]) < 1e-6 if newton else steps.status[0] == Status.CORRECTED


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.Sigmoid])
def test_the_gradient_is_that_of_torch(activation):
    network = perceptron((3, 16, 8, 1), activation, seed=1)
    kind = activation.__name__.lower()
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    kinds = [kind] * (len(linear) - 1) + ["none"]
    layers = [
        Layer(layer.weight.detach().numpy(), layer.bias.detach().numpy(), name)
        for layer, name in zip(linear, kinds, strict=True)
    ]
    action = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    value = network(action)
    (gradient,) = torch.autograd.grad(value.sum(), action)
    ours = room_and_gradient(layers, action.detach().numpy(), np.zeros((200, 1), np.float32))
    assert np.abs(ours[0] - value.detach().numpy()[:, 0]).max() < GRADIENT_TOLERANCE
    assert np.abs(ours[1] - gradient.numpy()).max() < GRADIENT_TOLERANCE


def example(activation, *, newton, iterations, seed=0):
    spec = make_spec(4, 3)
    critic = perceptron((7, 16, 16, 1), activation, seed)
    bound = perceptron((4, 8, 1), nn.Tanh, seed + 1)
    policy = perceptron((4, 8, 3), nn.Tanh, seed + 2)
    seen = 4.0 * torch.rand(500, 4, generator=torch.Generator().manual_seed(seed)) - 2.0
    with torch.no_grad():
        values = critic(torch.cat([seen, policy(seen).clamp(-1.0, 1.0)], 1))
    middle = float(values.median())  # so that about half of the proposals miss the bound
    constraint = ChanceConstraint(
        critic,
        Network(bound, gain=[0.05], shift=[middle]),
        newton=newton,
        step=1.0 if newton else 0.05,
        iterations=iterations,
    )
    program = chance_constrained_program("p", spec, Network(policy), constraint)

    def reference(rows):
        """The loop of the method, row by row frozen where it has arrived."""
        action = policy(rows).clamp(-1.0, 1.0)
        goal = 0.05 * bound(rows)[:, 0] + middle

        def evaluate(action):
            leaf = action.clone().requires_grad_(True)
            with torch.enable_grad():
                value = critic(torch.cat([rows, leaf], 1))[:, 0]
                return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]

        value, gradient = evaluate(action)
        best, best_value = action, value
        for _ in range(iterations):
            going = (value < goal).unsqueeze(1)
            inward = torch.where(gradient > 0.0, action < 1.0, action > -1.0)
            gradient = gradient * inward
            change = (
                (goal - value).unsqueeze(1) * gradient / gradient.square().sum(1, keepdim=True)
                if newton
                else 0.05 * gradient / gradient.abs().amax(1, keepdim=True)
            )
            action = torch.where(going, (action + change).clamp(-1.0, 1.0), action)
            value, gradient = evaluate(action)
            better = going[:, 0] & (value > best_value)
            best = torch.where(better.unsqueeze(1), action, best)
            best_value = torch.where(better, value, best_value)
        return best

    return program, reference


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize(("newton", "iterations"), [(True, 5), (False, 20)])
def test_c_equals_the_interpreter_and_follows_the_method(activation, newton, iterations):
    program, reference = example(activation, newton=newton, iterations=iterations)
    rows = np.random.default_rng(0).uniform(-2.0, 2.0, (400, 4)).astype(np.float32)
    report = verify(program, observations=rows)
    assert report.corrected > 10
    ours = interpret(program, rows)
    with torch.no_grad():
        theirs = reference(torch.from_numpy(rows)).numpy()
    difference = np.abs(ours.action - theirs).max(axis=1)
    # Where a value meets its bound within rounding, one side takes a step more than the other.
    assert np.quantile(difference, 0.97) < ACTION_TOLERANCE
    certified = ours.status != Status.FALLBACK
    assert ours.margin[certified].min() >= 0.0
    assert ours.margin[~certified].max(initial=-1.0) < 0.0


@pytest.mark.parametrize(("newton", "step"), [(True, 1.0), (False, 0.05)])
@pytest.mark.parametrize("share", [0.5, 0.2, 0.1])
def test_the_correction_moves_along_an_active_limit(newton, step, share):
    """g = -1 - u1 - share u2 from (-1, 0), which is at a limit, to g >= 0.45 share: u2 = -0.45."""
    critic = nn.Sequential(nn.Linear(3, 1))
    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[0.0, -1.0, -share]]))
        critic[0].bias.copy_(torch.tensor([-1.0]))
    constraint = ChanceConstraint(
        critic,
        constant_network(1, [0.45 * share]),
        newton=newton,
        step=step,
        iterations=12,
        aim=1e-6,
    )
    policy = constant_network(1, [-1.0, 0.0])
    program = chance_constrained_program("p", make_spec(1, 2), policy, constraint)
    rows = np.zeros((1, 1), np.float32)
    steps = interpret(program, rows)
    assert steps.status[0] == Status.CORRECTED
    assert np.allclose(steps.action[0], (-1.0, -0.45), atol=0.051)
    assert verify(program, observations=rows).corrected == 1


@pytest.mark.parametrize("network", ["critic", "bound"])
def test_where_the_critic_is_not_finite_the_fail_safe_action_leaves(network):
    """A layer overflows and the next subtracts infinity from infinity; policy and rows are fine."""
    layers = nn.Sequential(
        nn.Linear(3 if network == "critic" else 1, 2), nn.ReLU(), nn.Linear(2, 1)
    )
    with torch.no_grad():
        layers[0].weight.zero_()
        layers[0].weight[:, 0] = 3e38
        layers[0].bias.zero_()
        layers[2].weight.copy_(torch.tensor([[3e38, -3e38]]))
        layers[2].bias.fill_(-1.0)
    finite = nn.Sequential(nn.Linear(3, 1))
    constraint = (
        ChanceConstraint(layers, constant_network(1, [0.0]))
        if network == "critic"
        else ChanceConstraint(finite, Network(layers))
    )
    program = chance_constrained_program(
        "p", make_spec(1, 2), constant_network(1, [0.9, 0.9]), constraint, fail_safe=[-0.5, 0.25]
    )
    rows = np.array([[1.0], [-1.0]], np.float32)
    steps = interpret(program, rows)
    assert steps.status[0] == Status.FALLBACK
    assert steps.action[0].tolist() == [-0.5, 0.25]
    assert steps.action[1].tolist() != [-0.5, 0.25]
    verify(program, observations=rows)


def test_critics_without_a_derivative_or_of_another_size_are_refused():
    spec, policy = make_spec(1, 2), constant_network(1, [0.0, 0.0])
    bound = constant_network(1, [0.0])
    for critic in (
        nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(3, 4), nn.Tanh()),
    ):
        with pytest.raises(UnsupportedLayer, match="the critic"):
            chance_constrained_program("p", spec, policy, ChanceConstraint(critic, bound))
    wide = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    with pytest.raises(ShapeError, match="critic"):
        chance_constrained_program("p", spec, policy, ChanceConstraint(wide, bound))

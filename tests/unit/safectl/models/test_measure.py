import itertools

import pytest
import torch

from safectl.models import Batch, ForwardBackward, Learner, Sizes, UpdateSettings, draw
from safectl.models.measure import (
    actor_loss,
    densities,
    measure_loss,
    orthonormality_loss,
    value_loss,
)
from safectl.seed import torch_generator

HEADS, ROWS, NZ = 2, 5, 4


def test_the_measure_loss_is_the_sum_written_out():
    forward, backward = torch.randn(HEADS, ROWS, NZ), torch.randn(ROWS, NZ)
    target, discount = torch.randn(ROWS, ROWS), torch.rand(ROWS)
    measure = densities(forward, backward)
    expected = 0.0
    for k, i, j in itertools.product(range(HEADS), range(ROWS), range(ROWS)):
        m = float(forward[k, i] @ backward[j])
        if i == j:
            expected -= m / ROWS
        else:
            expected += 0.5 * (m - float(discount[i] * target[i, j])) ** 2 / (ROWS * (ROWS - 1))
    assert float(measure_loss(measure, target, discount)) == pytest.approx(expected, rel=1e-5)


def test_the_orthonormality_loss_is_least_for_an_orthonormal_basis():
    basis = NZ**0.5 * torch.eye(NZ).repeat(50, 1)
    skewed = NZ**0.5 * torch.nn.functional.normalize(basis + 0.5 * basis.roll(1, 1), dim=-1)
    assert orthonormality_loss(basis) < orthonormality_loss(skewed)


def test_minimising_the_orthonormality_loss_makes_the_covariance_the_identity():
    generator = torch_generator(0, "test")
    raw = torch.randn(400, NZ, generator=generator) @ torch.diag(torch.tensor([3.0, 1.0, 0.5, 0.1]))
    raw.requires_grad_(True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(150):
        backward = NZ**0.5 * torch.nn.functional.normalize(raw, dim=-1)
        optimizer.zero_grad()
        orthonormality_loss(backward).backward()
        optimizer.step()
    backward = NZ**0.5 * torch.nn.functional.normalize(raw.detach(), dim=-1)
    covariance = backward.T @ backward / len(backward)
    assert torch.allclose(covariance, torch.eye(NZ), atol=0.05)


def test_the_value_loss_vanishes_where_q_obeys_its_bellman_equation():
    backward, task = torch.randn(50, NZ), torch.randn(50, NZ)
    covariance = backward.T @ backward / 50
    reward = (backward * (torch.linalg.inv(covariance) @ task.T).T).sum(-1)
    forward = (reward / task.square().sum(-1))[:, None] * task
    loss = value_loss(
        forward.expand(HEADS, -1, -1), torch.zeros(HEADS, 50, NZ), backward, task, torch.ones(50)
    )
    assert float(loss) == pytest.approx(0.0, abs=1e-5)


def test_the_actor_is_judged_by_the_smaller_head():
    task = torch.ones(1, NZ)
    forward = torch.stack([torch.full((1, NZ), 2.0), torch.full((1, NZ), -1.0)])
    assert float(actor_loss(forward, task)) == NZ


@pytest.mark.slow
def test_the_learned_measure_is_that_of_a_tabular_chain():
    """Six states, the next one two thirds of the time one step to the right; gamma = 0.9."""
    states, gamma, copies = 6, 0.9, 8
    step = torch.eye(states)
    transition = 2.0 / 3.0 * step.roll(1, 1) + 1.0 / 3.0 * step.roll(2, 1)
    resolvent = torch.linalg.inv(torch.eye(states) - gamma * transition)
    exact = states * resolvent @ transition  # the data are uniform over states
    here = torch.arange(states).repeat_interleave(3).repeat(copies)
    there = (here + torch.tensor([1, 1, 2]).repeat(states * copies)) % states
    rows = len(here)
    rows = len(here)
    sizes = Sizes(nx=states, nu=1, nz=8, hidden=64, embedding=32, backward_hidden=64)
    model = ForwardBackward(sizes)
    settings = UpdateSettings(learning_rate=1e-3, polyak=0.05)
    learner = Learner(model, settings, discount=gamma)
    generator = torch_generator(0, "tabular")
    for _ in range(900):
        action = 2.0 * torch.rand(rows, 1, generator=generator) - 1.0  # without influence
        batch = Batch(step[here], action, step[there], torch.ones(rows))
        learner.update(batch, draw(rows, 1, 8, 0.5, generator))
    with torch.no_grad():
        task = model.backward(step[[2]]).expand(states, -1)
        learned = densities(
            model.forward(step, torch.zeros(states, 1), task), model.backward(step)
        ).mean(0)
    error = (learned - exact).norm() / exact.norm()
    assert float(error) < 0.05

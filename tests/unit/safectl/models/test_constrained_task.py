"""Task vectors bent away from an unsafe set."""

import pytest
import torch

from safectl.errors import NonFiniteError, RangeError, ShapeError
from safectl.models import ForwardBackward, Sizes, constrain_task
from safectl.seed import torch_generator
from safectl.types import Task

SIZES = Sizes(nx=2, nu=1, nz=3, hidden=8, embedding=8, backward_hidden=8)
STATES = torch.randn(20, 2, generator=torch_generator(0, "states"))


class Follows(torch.nn.Module):
    """A model whose policy earns and visits as its vector points: F^T w = z^T w / nz."""

    def forward(self, observation, action, task):
        del observation, action
        return torch.stack([task, 1.1 * task]) / task.shape[-1]


@pytest.fixture
def model():
    found = ForwardBackward(SIZES)
    found.forward = Follows()
    return found


def search(model, budget, unsafe=(1.0, 1.0, 0.0), seed=0):
    task = Task(3.0**0.5 * torch.tensor([1.0, 0.0, 0.0]))
    return constrain_task(
        *(model, task, torch.tensor(unsafe), STATES),
        budget=budget,
        generator=torch_generator(seed, "search"),
    )


@pytest.mark.parametrize("budget", [0.0, 0.2])
def test_the_best_vector_within_the_budget_is_found(model, budget):
    """Largest z_1 on the sphere with 1.1 (z_1 + z_2) / 3 <= budget: by Lagrange, to 1 %."""
    found = search(model, budget)
    sums, radius = 3.0 * budget / 1.1, 3.0
    best = 0.5 * (sums + (2.0 * radius - sums**2) ** 0.5)
    assert found.is_within
    assert found.occupancy <= budget
    assert float(found.task.vector[0]) == pytest.approx(best, rel=1e-2)
    assert float(found.task.vector.norm()) == pytest.approx(3.0**0.5, rel=1e-5)
    assert found.asked_occupancy > budget
    assert found.value < found.asked_value


def test_a_task_within_the_budget_stays_as_it_is(model):
    found = search(model, 5.0)
    assert torch.allclose(found.task.vector, 3.0**0.5 * torch.tensor([1.0, 0.0, 0.0]), atol=1e-6)


def test_a_budget_that_no_vector_keeps_is_said(model):
    model.forward.forward = lambda observation, action, task: torch.stack(
        [task, 0.0 * task + 5.0 + 0.1 * task]
    )
    found = search(model, 0.5)
    assert not found.is_within
    assert found.occupancy < found.asked_occupancy


def test_the_search_is_repeatable_and_refuses_what_is_wrong(model):
    assert torch.equal(search(model, 0.1).task.vector, search(model, 0.1).task.vector)
    with pytest.raises(RangeError, match="budget"):
        search(model, -1.0)
    with pytest.raises(NonFiniteError, match="unsafe"):
        search(model, 0.1, unsafe=(torch.nan, 0.0, 0.0))
    with pytest.raises(ShapeError, match="unsafe"):
        search(model, 0.1, unsafe=(0.0, 0.0))

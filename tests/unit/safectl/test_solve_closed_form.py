"""Closed forms against the active-set method, and where they pass a problem on."""

import pytest
import torch

from safectl.solve.closed_form import one_half_space, one_of_two
from safectl.solve.projection import Problem, holds
from safectl.solve.qp import project_many

BATCH = 300
TWO_METHODS = 1e-9  # float64 rounding of two exact methods; random rows are well conditioned


def draw(m: int, nu: int, seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    normals = normal(m, nu, BATCH)
    offsets = (normals * normal(nu, BATCH).clamp(-0.9, 0.9)).sum(1)
    limit = torch.ones(nu, 1, dtype=torch.float64)
    return Problem(2.0 * normal(nu, BATCH), normals, offsets, -limit, limit)


@pytest.mark.parametrize("nu", [1, 2, 3, 6, 9])
def test_one_half_space_equals_the_active_set_method(nu: int) -> None:
    problem = draw(1, nu)
    point, normals, offsets, low, high = problem
    nearest = one_half_space(point, normals[0], offsets[0], low, high)
    other = project_many(problem)
    assert bool(other.solved.all())
    assert torch.allclose(nearest, other.point, rtol=0.0, atol=TWO_METHODS)


def test_one_half_space_that_does_not_bind_only_clips() -> None:
    point, normals, _, low, high = draw(1, 4)
    nearest = one_half_space(point, normals[0], torch.full((BATCH,), -50.0).double(), low, high)
    assert torch.equal(nearest, point.clamp(low, high))


def test_one_half_space_out_of_reach_gives_the_corner_with_the_largest_value() -> None:
    point, normals, _, low, high = draw(1, 4)
    nearest = one_half_space(point, normals[0], torch.full((BATCH,), 50.0).double(), low, high)
    assert torch.equal(nearest, normals[0].sign())


@pytest.mark.parametrize("nu", [1, 2, 5])
def test_one_of_two_is_right_where_it_says_solved(nu: int) -> None:
    problem = draw(2, nu)
    found, other = one_of_two(problem), project_many(problem)
    assert int(found.solved.sum()) > 0.2 * BATCH
    assert bool((other.solved | ~found.solved).all())
    assert bool(holds(found.point, problem)[found.solved].all())
    gap = (found.point - other.point).abs().amax(0)
    assert float(gap[found.solved].max()) < TWO_METHODS


def test_a_tiny_entry_overflows_no_step() -> None:
    low, high = -torch.ones(2, 1), torch.ones(2, 1)
    normal = torch.tensor([[1.0], [1e-38]])
    nearest = one_half_space(torch.zeros(2, 1), normal, torch.tensor([1.0]), low, high)
    assert nearest[0].item() == 1.0
    assert bool(nearest.isfinite().all())

"""`project`: meanings of its answer on small and degenerate problems."""

import math

import pytest
import torch
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.solve import project, rounding_band
from safectl.solve.dispatch import check_problem
from safectl.solve.projection import BAND_ULPS

LOW, HIGH = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0])


def rows(*triples: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    matrix = torch.tensor(triples).reshape(1, -1, 3)
    return matrix[..., :2], matrix[..., 2]


def one(x: float, y: float) -> Tensor:
    return torch.tensor([[x, y]])


def test_without_constraints_the_point_is_clipped() -> None:
    found = project(one(3.0, 0.5), torch.zeros(1, 0, 2), torch.zeros(1, 0), LOW, HIGH)
    assert found.point.tolist() == [[1.0, 0.5]]
    assert found.feasible.tolist() == [True]
    assert found.residual.tolist() == [0.0]


def test_one_half_space_is_met_at_its_foot() -> None:
    found = project(one(0.0, 0.0), *rows((3.0, 4.0, 2.5)), LOW, HIGH)
    assert torch.allclose(found.point, one(0.3, 0.4))


def test_one_half_space_slides_along_the_limit() -> None:
    found = project(one(0.9, 0.0), *rows((1.0, 1.0, 1.5)), LOW, HIGH)
    assert torch.allclose(found.point, one(1.0, 0.5))


def test_two_half_spaces_meet_in_their_corner() -> None:
    found = project(one(0.9, 0.9), *rows((-1.0, 0.0, 0.0), (0.0, -1.0, 0.5)), LOW, HIGH)
    assert torch.allclose(found.point, one(0.0, -0.5))


@pytest.mark.parametrize("m", [1, 2, 5])
def test_a_zero_row_is_vacuous_or_infeasible(m: int) -> None:
    normals = torch.zeros(3, m, 2)
    offsets = torch.zeros(3, m)
    offsets[1, 0], offsets[2, 0] = -1.0, 1e-30
    found = project(torch.full((3, 2), 0.25), normals, offsets, LOW, HIGH)
    assert found.feasible.tolist() == [True, True, False]
    assert found.point.tolist() == [[0.25, 0.25]] * 3


@pytest.mark.parametrize("m", [0, 1, 2, 5])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["point", "normals", "offsets"])
def test_a_row_that_is_not_finite_is_refused_alone(m: int, bad: float, place: str) -> None:
    if m == 0 and place != "point":
        return
    parts = {
        "point": torch.full((3, 2), 0.5),
        "normals": torch.ones(3, m, 2),
        "offsets": torch.full((3, m), 1.2),
    }
    parts[place][1, ..., 0] = bad
    found = project(parts["point"], parts["normals"], parts["offsets"], LOW, HIGH)
    assert found.feasible.tolist() == [True, False, True]
    assert bool(found.point.isfinite().all())
    assert bool((found.point.abs() <= 1.0).all())
    assert float(found.residual[1]) == math.inf
    nearest = 0.5 if m == 0 else 0.6
    assert torch.allclose(found.point[[0, 2]], torch.full((2, 2), nearest))


@pytest.mark.parametrize("m", [1, 2, 6])
def test_an_infeasible_row_is_the_clipped_proposal_with_its_violation(m: int) -> None:
    normals, offsets = torch.ones(2, m, 2), torch.full((2, m), 1.0)
    offsets[1] = 2.5
    found = project(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), normals, offsets, LOW, HIGH)
    assert found.feasible.tolist() == [True, False]
    assert found.point[1].tolist() == [1.0, 0.0]
    assert found.residual[1].item() == pytest.approx(1.5)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_a_set_that_touches_the_corner_of_the_limits_is_feasible(m: int) -> None:
    found = project(one(-1.0, 0.3), torch.ones(1, m, 2), torch.full((1, m), 2.0), LOW, HIGH)
    assert bool(found.feasible)
    assert torch.allclose(found.point, one(1.0, 1.0))


def test_an_equality_as_two_rows_is_met() -> None:
    found = project(one(0.8, 0.1), *rows((1.0, 1.0, 0.4), (-1.0, -1.0, -0.4)), LOW, HIGH)
    assert bool(found.feasible)
    assert torch.allclose(found.point, one(0.55, -0.15))


def test_a_limit_may_be_a_single_value() -> None:
    fixed = torch.tensor([0.5, -1.0])
    found = project(one(0.0, 0.0), *rows((1.0, 1.0, 1.0)), fixed, torch.tensor([0.5, 1.0]))
    assert torch.allclose(found.point, one(0.5, 0.5))


@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3, 1e30])
def test_the_length_of_a_row_does_not_matter(m: int, size: float) -> None:
    normals, offsets = size * torch.ones(1, m, 2), torch.full((1, m), size)
    found = project(one(0.0, 0.5), normals, offsets, LOW, HIGH)
    assert bool(found.feasible)
    assert torch.allclose(found.point, one(0.25, 0.75))


@pytest.mark.parametrize("m", [1, 2, 4])
def test_an_offset_far_out_of_reach_is_infeasible(m: int) -> None:
    found = project(one(0.0, 0.0), torch.ones(1, m, 2), torch.full((1, m), 1e30), LOW, HIGH)
    assert not bool(found.feasible)


@pytest.mark.parametrize("m", [0, 1, 2, 4])
def test_an_empty_batch_gives_an_empty_answer(m: int) -> None:
    found = project(torch.zeros(0, 2), torch.zeros(0, m, 2), torch.zeros(0, m), LOW, HIGH)
    assert found.point.shape == (0, 2)
    assert found.feasible.shape == found.residual.shape == (0,)


def test_the_arguments_are_not_changed_and_no_gradient_is_kept() -> None:
    point = one(2.0, 2.0).requires_grad_()
    normals, offsets = rows((-1.0, 0.0, 0.0), (0.0, -1.0, 0.5))
    copies = [part.clone() for part in (point, normals, offsets)]
    found = project(point, normals, offsets, LOW, HIGH)
    assert not found.point.requires_grad
    for part, copy in zip((point, normals, offsets), copies, strict=True):
        assert torch.equal(part, copy)


def test_the_band_is_a_multiple_of_the_reach_of_a_row() -> None:
    band = rounding_band(torch.tensor([[[3.0, -4.0], [0.0, 0.0]]]), LOW, 2.0 * HIGH)
    assert band.tolist()[0] == pytest.approx([14.0 * BAND_ULPS * 2.0**-23, 0.0])


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("normals", ((4, 2), (4, 1, 3), (4, 1), (2,), (2,))),
        ("offsets", ((4, 2), (4, 1, 2), (3, 1), (2,), (2,))),
        ("high", ((4, 2), (4, 1, 2), (4, 1), (2,), (1,))),
    ],
)
def test_wrong_shapes_are_named(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ShapeError, match=name):
        check_problem(*(torch.zeros(shape) for shape in shapes))


def test_mixed_dtypes_and_crossed_limits_are_refused() -> None:
    normals, offsets = rows((1.0, 0.0, 0.0))
    with pytest.raises(RangeError, match="dtype"):
        project(one(0.0, 0.0).double(), normals, offsets, LOW, HIGH)
    with pytest.raises(RangeError, match="limits"):
        project(one(0.0, 0.0), normals, offsets, HIGH, LOW)
    with pytest.raises(RangeError, match="limits"):
        project(one(0.0, 0.0), normals, offsets, LOW, HIGH * math.inf)

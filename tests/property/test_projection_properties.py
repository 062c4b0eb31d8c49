"""Laws of the projection on a convex set, on generated problems with the set's point known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from safectl.solve import project, rounding_band
from tests.property.projection_cases import KINDS, Case, draw

EXACT = 1e-9  # float64: the rounding band of 1.4e-14, amplified by corners down to 1e-5 rad
LAW = settings(max_examples=50, deadline=None, derandomize=True)  # no clock, no chance in tests
FEW = settings(LAW, max_examples=12)
ROW_BOUND = 1e-6  # stated: a row of a batch equals the row alone within this


@st.composite
def cases(draws: Callable[..., int], feasible: bool = True) -> Case:
    m, nu = draws(st.integers(1, 7)), draws(st.integers(1, 6))
    kinds = [kind for kind in KINDS if not feasible or Case(kind, *[np.zeros(0)] * 5).feasible]
    kind = kinds[draws(st.integers(0, len(kinds) - 1))]
    rng = np.random.default_rng(draws(st.integers(0, 2**32 - 1)))
    low, high = -rng.uniform(0.3, 2.0, nu), rng.uniform(0.3, 2.0, nu)
    return draw(rng, kind, m, nu, low, high)


def tensors(case: Case, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    arrays = (case.point[None], case.normals[None], case.offsets[None], case.low, case.high)
    point, normals, offsets, low, high = (torch.tensor(array, dtype=dtype) for array in arrays)
    return point, normals, offsets, low, high


@LAW
@given(case=cases(), single=st.booleans())
def test_projecting_twice_changes_no_bit(case: Case, single: bool) -> None:
    point, *rest = tensors(case, torch.float32 if single else torch.float64)
    once = project(point, *rest)
    assert bool(once.feasible)
    assert torch.equal(project(once.point, *rest).point, once.point)


@LAW
@given(case=cases())
def test_an_admissible_point_comes_back_bit_for_bit(case: Case) -> None:
    _, normals, offsets, low, high = tensors(case)
    inner = project(torch.zeros_like(low).unsqueeze(0), normals, offsets, low, high).point
    again = project(inner, normals, offsets - 1e-3, low, high)
    assert torch.equal(again.point, inner)
    assert bool(again.feasible)


@LAW
@given(case=cases(), single=st.booleans())
def test_the_point_is_in_the_set_and_the_residual_says_so(case: Case, single: bool) -> None:
    point, normals, offsets, low, high = tensors(case, torch.float32 if single else torch.float64)
    found = project(point, normals, offsets, low, high)
    slack = (normals * found.point.unsqueeze(1)).sum(-1) - offsets
    assert bool(((found.point >= low) & (found.point <= high)).all())
    assert bool((slack >= -rounding_band(normals, low, high)).all())
    eps = torch.finfo(low.dtype).eps
    summing = 8 * eps * float((normals.abs().sum(-1) * high.max()).max() + offsets.abs().max())
    assert float(found.residual) == pytest.approx(max(0.0, -float(slack.min())), abs=summing)


@LAW
@given(case=cases(), shift=st.floats(0.0, 3.0), seed=st.integers(0, 2**16))
def test_projection_brings_no_two_points_further_apart(case: Case, shift: float, seed: int) -> None:
    point, *rest = tensors(case)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(point.shape, generator=generator, dtype=point.dtype)
    other = point + shift * noise
    gap = (project(point, *rest).point - project(other, *rest).point).norm()
    assert float(gap) <= float((point - other).norm()) + EXACT


@FEW
@given(case=cases())
def test_the_point_is_the_nearest_by_the_variational_inequality(case: Case) -> None:
    point, normals, offsets, low, high = tensors(case)
    nearest = project(point, normals, offsets, low, high).point
    generator = torch.Generator().manual_seed(0)
    anywhere = torch.randn(8, len(low), generator=generator, dtype=low.dtype)
    count = len(anywhere)
    others = project(
        anywhere, normals.expand(count, -1, -1), offsets.expand(count, -1), low, high
    ).point
    assert float(((point - nearest) * (others - nearest)).sum(-1).max()) <= EXACT


@LAW
@given(case=cases(feasible=False))
def test_another_constraint_never_brings_the_point_closer(case: Case) -> None:
    point, normals, offsets, low, high = tensors(case)
    more = project(point, normals, offsets, low, high)
    less = project(point, normals[:, :-1], offsets[:, :-1], low, high)
    if more.feasible:
        assert bool(less.feasible)
        assert float((more.point - point).norm()) >= float((less.point - point).norm()) - EXACT


@LAW
@given(case=cases(feasible=False), seed=st.integers(0, 2**16))
def test_the_order_of_the_constraints_does_not_matter(case: Case, seed: int) -> None:
    point, normals, offsets, low, high = tensors(case)
    order = torch.randperm(len(offsets[0]), generator=torch.Generator().manual_seed(seed))
    one = project(point, normals, offsets, low, high)
    other = project(point, normals[:, order], offsets[:, order], low, high)
    assert bool(one.feasible) == bool(other.feasible) == case.feasible
    assert torch.allclose(one.point, other.point, rtol=0.0, atol=EXACT)


@FEW
@given(
    seed=st.integers(0, 2**32 - 1), m=st.integers(1, 6), nu=st.integers(1, 6), single=st.booleans()
)
def test_a_row_of_a_batch_equals_the_row_alone(seed: int, m: int, nu: int, single: bool) -> None:
    rng = np.random.default_rng(seed)
    low, high = -rng.uniform(0.3, 2.0, nu), rng.uniform(0.3, 2.0, nu)
    drawn = [draw(rng, kind, m, nu, low, high) for kind in KINDS]
    rows = [tensors(case, torch.float32 if single else torch.float64) for case in drawn]
    limits = rows[0][3:]
    together = project(*(torch.cat([row[k] for row in rows]) for k in range(3)), *limits)
    for index, row in enumerate(rows):
        alone = project(*row)
        assert bool(alone.feasible) == bool(together.feasible[index])
        assert torch.allclose(alone.point[0], together.point[index], rtol=0.0, atol=ROW_BOUND)

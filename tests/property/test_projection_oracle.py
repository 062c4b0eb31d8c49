"""20,000 random projection problems against Clarabel, and some of them through CVXPY itself."""

from functools import cache

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy.atoms.sum_squares import sum_squares

from safectl.solve import Projection, project, rounding_band
from tests.property.projection_cases import (
    INFEASIBLE,
    KINDS,
    ORACLE_TOLERANCE,
    Array,
    Case,
    batch,
    clarabel_projection,
)

SIZES = [(m, nu) for m in range(1, 7) for nu in range(1, 9)]
PER_SIZE = 417  # 48 sizes: 20,016 problems
THROUGH_CVXPY = 20  # per size: 960 problems

DOUBLE_ERROR = 1e-5  # the promise; the oracle's own error is up to 1.4e-6, the worst seen 1.8e-7
SINGLE_ERROR = 1e-4  # 64 epsilons are 7.6e-6; a corner of 5 degrees amplifies them by 12

pytestmark = pytest.mark.slow


def answer(cases: list[Case], dtype: torch.dtype) -> Projection:
    def stack(name: str) -> torch.Tensor:
        return torch.tensor(np.array([getattr(case, name) for case in cases]), dtype=dtype)

    low, high = (torch.tensor(limit, dtype=dtype) for limit in (cases[0].low, cases[0].high))
    result = project(stack("point"), stack("normals"), stack("offsets"), low, high)
    slack = (stack("normals") * result.point.unsqueeze(1)).sum(-1) - stack("offsets")
    admissible = (slack >= -rounding_band(stack("normals"), low, high)).all(-1)
    inside = ((result.point >= low) & (result.point <= high)).all(-1)
    assert bool(inside.all())
    assert bool((admissible | ~result.feasible).all())
    return result


@cache
def problems(m: int, nu: int) -> tuple[list[Case], list[Array | None]]:
    cases = batch(0, PER_SIZE, m, nu)
    return cases, [clarabel_projection(case) for case in cases]


@pytest.mark.parametrize(("m", "nu"), SIZES)
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, DOUBLE_ERROR), (torch.float32, SINGLE_ERROR)], ids=str
)
def test_projection_agrees_with_clarabel(m: int, nu: int, dtype: torch.dtype, bound: float) -> None:
    cases, expected = problems(m, nu)
    result = answer(cases, dtype)
    for index, (case, nearest) in enumerate(zip(cases, expected, strict=True)):
        where = f"{case.kind} {index}"
        assert (nearest is not None) == case.feasible, where
        assert bool(result.feasible[index]) == case.feasible, where
        if nearest is not None:
            error = np.abs(result.point[index].double().numpy() - nearest).max()
            assert error < bound, where


def test_the_problems_hold_every_kind_often_enough() -> None:
    kinds = [case.kind for m, nu in SIZES for case in batch(0, PER_SIZE, m, nu)]
    assert len(kinds) >= 20_000
    assert min(kinds.count(kind) for kind in KINDS) > 1_900
    assert sum(kind in INFEASIBLE for kind in kinds) > 7_500


@pytest.mark.parametrize(("m", "nu"), SIZES)
def test_projection_agrees_with_cvxpy(m: int, nu: int) -> None:
    cases = batch(1, THROUGH_CVXPY, m, nu)
    result = answer(cases, torch.float64)
    action, proposal = cp.Variable(nu), cp.Parameter(nu)
    normals, offsets = cp.Parameter((m, nu)), cp.Parameter(m)
    limits = [action >= cases[0].low, action <= cases[0].high]
    problem = cp.Problem(
        cp.Minimize(0.5 * sum_squares(action - proposal)),
        [normals @ action >= offsets, *limits],
    )
    tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), ORACLE_TOLERANCE)
    for index, case in enumerate(cases):
        proposal.value, normals.value, offsets.value = case.point, case.normals, case.offsets
        problem.solve(solver=cp.CLARABEL, **tight)  # type: ignore[no-untyped-call]  # CVXPY's
        assert (problem.status == cp.OPTIMAL) == bool(result.feasible[index]), case.kind
        if problem.status == cp.OPTIMAL:
            error = np.abs(result.point[index].numpy() - action.value).max()
            assert error < DOUBLE_ERROR, case.kind

"""Quadratic programs with any objective, and the number of steps of the active-set method."""

import clarabel
import numpy as np
import pytest
import torch
from scipy import sparse  # type: ignore[import-untyped]  # has no stubs here

from safectl.solve import Projection, active_set, project, solve_qp
from tests.property.projection_cases import KINDS, Array, batch

LIMIT = 1.0
AGREE = 1e-5  # the promise in float64, as for projections


def program(nu: int, m: int, condition: float, count: int = 20) -> dict[str, Array]:
    rng = np.random.default_rng([nu, m])
    basis = np.linalg.qr(rng.normal(size=(count, nu, nu)))[0]
    values = condition ** rng.uniform(0.0, 1.0, (count, nu))
    hessian = np.einsum("bij,bj,bkj->bik", basis, values, basis)
    normals = rng.normal(size=(count, m, nu))
    inner = rng.uniform(-0.9, 0.9, (count, nu, 1))
    offsets = (normals @ inner)[..., 0] - rng.uniform(0.0, 0.1, (count, m))
    linear = -(hessian @ (2.0 * rng.normal(size=(count, nu, 1))))[..., 0]
    return {"hessian": hessian, "linear": linear, "normals": normals, "offsets": offsets}


def oracle(hessian: Array, linear: Array, normals: Array, offsets: Array) -> Array:
    nu = len(linear)
    rows = sparse.csc_matrix(np.vstack([-normals, np.eye(nu), -np.eye(nu)]))
    bounds = np.concatenate([-offsets, np.full(2 * nu, LIMIT)])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    upper = sparse.csc_matrix(np.triu(hessian))
    cones = [clarabel.NonnegativeConeT(len(bounds))]
    solution = clarabel.DefaultSolver(upper, linear, rows, bounds, cones, settings).solve()
    return np.array(solution.x)


def solve(parts: dict[str, torch.Tensor]) -> Projection:
    limit = torch.full((parts["linear"].shape[1],), LIMIT, dtype=parts["linear"].dtype)
    constraints = (parts["normals"], parts["offsets"])
    return solve_qp(parts["hessian"], parts["linear"], constraints, -limit, limit)


@pytest.mark.parametrize(("nu", "m"), [(1, 1), (2, 2), (3, 1), (4, 6), (8, 10)])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_qp_agrees_with_clarabel(nu: int, m: int, condition: float) -> None:
    arrays = program(nu, m, condition)
    found = solve({name: torch.from_numpy(array) for name, array in arrays.items()})
    assert bool(found.feasible.all())
    for index, point in enumerate(found.point.numpy()):
        expected = oracle(*(array[index] for array in arrays.values()))
        assert np.abs(point - expected).max() < AGREE


def test_a_shared_hessian_equals_one_per_row() -> None:
    parts = {name: torch.from_numpy(array) for name, array in program(3, 2, 10.0).items()}
    shared = parts | {"hessian": parts["hessian"][0]}
    repeated = parts | {"hessian": parts["hessian"][:1].expand(20, -1, -1)}
    assert torch.equal(solve(shared).point, solve(repeated).point)


def test_the_identity_gives_the_projection() -> None:
    parts = {name: torch.from_numpy(array) for name, array in program(4, 3, 1.0).items()}
    limit = torch.ones(4, dtype=torch.float64)
    found = solve(parts | {"hessian": torch.eye(4, dtype=torch.float64)})
    other = project(-parts["linear"], parts["normals"], parts["offsets"], -limit, limit)
    assert torch.allclose(found.point, other.point, rtol=0.0, atol=1e-12)


def test_rows_that_cannot_be_solved_are_marked_and_disturb_no_other() -> None:
    parts = {name: torch.from_numpy(array) for name, array in program(2, 2, 10.0).items()}
    good = solve(parts)
    parts["hessian"][1] = -torch.eye(2)
    parts["linear"][2, 0] = torch.nan
    parts["hessian"][3, 0, 0] = torch.inf
    parts["offsets"][4, 0] = 1e3
    found = solve(parts)
    bad = [1, 2, 3, 4]
    assert not bool(found.feasible[bad].any())
    assert bool(found.point.isfinite().all())
    assert torch.equal(found.point[bad], torch.zeros(4, 2, dtype=torch.float64))
    rest = [index for index in range(20) if index not in bad]
    assert torch.equal(found.point[rest], good.point[rest])
    assert bool(found.residual[[1, 2, 3]].isinf().all())


def test_an_infinite_offset_is_refused() -> None:
    parts = {name: torch.from_numpy(array) for name, array in program(2, 2, 10.0).items()}
    parts["offsets"][0, 0] = -torch.inf
    assert not bool(solve(parts).feasible[0])


@pytest.mark.parametrize(("m", "nu", "most"), [(6, 2, 16), (6, 8, 30), (32, 4, 40), (32, 8, 60)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_step_bound_is_twice_what_random_problems_need(
    m: int, nu: int, most: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts the steps of the longest problem among every kind of problem."""
    steps = 0
    advance = active_set._advance

    def counted(
        state: active_set.ActiveSet, direction: active_set._Direction, rows: active_set.Rows
    ) -> tuple[active_set.ActiveSet, torch.Tensor]:
        nonlocal steps
        steps += 1
        return advance(state, direction, rows)

    monkeypatch.setattr(active_set, "_advance", counted)
    cases = batch(3, 10 * len(KINDS), m, nu)
    stacks = [np.array([case[k] for case in cases]) for k in (1, 2, 3)]
    limits = [cases[0].low, cases[0].high]
    found = project(*(torch.tensor(array, dtype=dtype) for array in [*stacks, *limits]))
    assert found.feasible.tolist() == [case.feasible for case in cases]
    assert steps <= most <= active_set.step_bound(m + 2 * nu) / 2

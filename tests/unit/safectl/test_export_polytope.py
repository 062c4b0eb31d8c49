import cvxpy as cp
import numpy as np
import pytest

from safectl.export.polytope import Planes, project_polytope_box
from safectl.solve.active_set import step_bound

ORACLE_TOLERANCE = 1e-5
"""Float32 against Clarabel at 1e-10, for numbers of size one."""


def random_problem(seed, rows, nu, *, batch=40):
    rng = np.random.default_rng(seed)
    low = -rng.random((batch, nu)) - 0.1
    high = rng.random((batch, nu)) + 0.1
    planes = Planes(
        point=0.5 * rng.standard_normal((batch, nu)).astype(np.float32),
        room=(0.6 * rng.standard_normal((batch, rows)) + 0.3).astype(np.float32),
        normals=rng.standard_normal((batch, rows, nu)).astype(np.float32),
        backoff=np.full((batch, rows), 1e-6, np.float32),
    )
    start = 2.0 * rng.standard_normal((batch, nu))
    return start.astype(np.float32), planes, low.astype(np.float32), high.astype(np.float32)


def solve(start, planes, low, high):
    steps = step_bound(planes.room.shape[1] + 2 * start.shape[1])
    return project_polytope_box(start, planes, low, high, steps)


def oracle(start, planes, low, high, row):
    """Return the exact projection of one row by Clarabel, None where the set is empty."""
    u = cp.Variable(start.shape[1])
    normals = planes.normals[row].astype(np.float64)
    room = planes.room[row] - planes.backoff[row].astype(np.float64)
    constraints = [room + normals @ (u - planes.point[row]) >= 0, u >= low[row], u <= high[row]]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u - start[row])), constraints)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return u.value if problem.status == cp.OPTIMAL else None


@pytest.mark.parametrize(("seed", "rows", "nu"), [(0, 1, 2), (1, 2, 2), (2, 4, 3), (3, 9, 2)])
def test_the_projection_is_that_of_an_exact_solver(seed, rows, nu):
    problem = random_problem(seed, rows, nu)
    action, corner = solve(*problem)
    feasible = 0
    for row in range(len(action)):
        exact = oracle(*problem, row)
        if exact is None:
            assert np.array_equal(action[row], corner[row])
            continue
        feasible += 1
        assert np.abs(action[row] - exact).max() < ORACLE_TOLERANCE
    assert feasible > 5


def test_an_admissible_start_comes_back_bit_for_bit():
    start, planes, low, high = random_problem(4, 3, 2)
    start = np.clip(start, low, high)
    planes = planes._replace(room=planes.room + np.float32(20.0))
    assert np.array_equal(solve(start, planes, low, high)[0], start)


def test_repeated_opposite_and_zero_rows_are_no_obstacle():
    start, planes, low, high = random_problem(5, 4, 2)
    normals = planes.normals.copy()
    normals[:, 1] = 2.0 * normals[:, 0]
    normals[::2, 2] = -normals[::2, 0]
    normals[:, 3] = 0.0
    room = planes.room.copy()
    room[:, 1] = 2.0 * room[:, 0]
    room[:, 3] = np.abs(room[:, 3]) + np.float32(0.1)
    planes = planes._replace(normals=normals, room=room)
    action, corner = solve(start, planes, low, high)
    met = ~(action == corner).all(axis=1)
    assert met.any()
    after = room + (normals * (action - planes.point)[:, None]).sum(-1)
    assert after[met].min() > -1e-6
    assert ((action >= low) & (action <= high)).all()


def test_the_corner_is_the_best_one_for_the_constraint_that_is_worst_at_its_best():
    one = np.ones((1, 2), np.float32)
    planes = Planes(
        point=0 * one,
        room=np.array([[-9.0, -3.0]], np.float32),
        normals=np.array([[[1.0, -2.0], [1.0, 0.0]]], np.float32),
        backoff=np.zeros((1, 2), np.float32),
    )
    action, corner = solve(np.array([[0.3, 0.2]], np.float32), planes, -one, one)
    assert np.array_equal(corner, [[1.0, -1.0]])
    assert np.array_equal(action, corner)


def test_a_row_that_is_not_finite_returns_the_clipped_start_and_disturbs_no_other():
    start, planes, low, high = random_problem(6, 3, 2)
    expected, _ = solve(start, planes, low, high)
    room, normals = planes.room.copy(), planes.normals.copy()
    room[1, 0], normals[3, 1, 1], start[5, 0] = np.nan, np.inf, np.nan
    action, corner = solve(start, planes._replace(room=room, normals=normals), low, high)
    others = np.setdiff1d(np.arange(len(start)), [1, 3, 5])
    assert np.array_equal(action[others], expected[others])
    for row in (1, 3):
        assert np.array_equal(action[row], np.clip(start, low, high)[row])
        assert np.array_equal(corner[row], action[row])

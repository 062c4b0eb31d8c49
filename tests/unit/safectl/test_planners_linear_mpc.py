import cvxpy as cp
import numpy as np
import pytest
import torch

from safectl.errors import RangeError, ShapeError
from safectl.planners import LinearMPC
from safectl.spec import Signal, Spec
from safectl.types import Status

SPEC = Spec(
    tuple(Signal(name, "1", -1.0, 1.0) for name in ("x", "v", "angle", "rate")),
    (Signal("force", "N", -0.5, 0.5),),
    0.01,
)
A = torch.tensor(
    [[1, 0.01, 0, 0], [0, 1, 0.039, 0], [0, 0, 1.002, 0.01], [0, 0, 0.458, 1.002]],
    dtype=torch.float64,
)
B = torch.tensor([[0.0], [0.02], [0.0], [0.067]], dtype=torch.float64)
Q = torch.diag(torch.tensor([10.0, 1.0, 10.0, 1.0], dtype=torch.float64))
R = torch.eye(1, dtype=torch.float64)
PLANNER = LinearMPC(SPEC, A, B, Q, R, horizon=20)


def states(count):
    draw = torch.rand(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (2.0 * draw - 1.0) * torch.tensor([0.5, 0.5, 0.2, 0.5], dtype=torch.float64)


def optimum(state):
    """State the problem with its states and let Clarabel solve it."""
    x, u = cp.Variable((21, 4)), cp.Variable((20, 1))
    rules = [x[0] == state, cp.abs(u) <= 0.5]
    rules += [x[k + 1] == A.numpy() @ x[k] + B.numpy() @ u[k] for k in range(20)]
    cost = sum(cp.quad_form(x[k], Q.numpy()) + cp.sum_squares(u[k]) for k in range(20))
    cost += cp.quad_form(x[20], PLANNER.terminal.numpy())
    problem = cp.Problem(cp.Minimize(cost), rules)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return u.value, x.value[1:]


def test_a_plan_is_the_optimum_of_the_problem_as_stated():
    rows = states(10)
    plan = PLANNER.plan(rows)
    assert (plan.actions.abs() > 0.499).any()
    for row in range(10):
        actions, after = optimum(rows[row].numpy())
        assert np.abs(plan.actions[row].numpy() - actions).max() < 1e-6
        assert np.abs(plan.states[row].numpy() - after).max() < 1e-6


def test_the_terminal_cost_solves_the_riccati_equation():
    P = PLANNER.terminal
    gain = torch.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
    assert torch.allclose(Q + A.T @ P @ (A - B @ gain), P, rtol=1e-9)


def test_without_binding_limits_the_first_action_is_the_linear_regulator():
    P = PLANNER.terminal
    gain = torch.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
    rows = 0.01 * states(5)
    assert torch.allclose(PLANNER.plan(rows).actions[:, 0], -rows @ gain.T, atol=1e-8)


def test_the_closed_loop_reaches_the_origin():
    state = 0.1 * states(20)  # from further away the force does not suffice
    for _ in range(800):
        state = state @ A.T + PLANNER.plan(state).actions[:, 0] @ B.T
    assert state.abs().max() < 1e-3


def test_a_row_that_is_not_finite_falls_back_to_the_centre():
    rows = states(3)
    rows[1, 2] = torch.nan
    plan = PLANNER.plan(rows)
    assert plan.certificate.status.tolist() == [1, Status.FALLBACK.value, 1]
    assert (plan.actions[1] == 0.0).all()
    assert torch.allclose(plan.actions[0], PLANNER.plan(rows[:1]).actions[0], atol=1e-9)


def test_what_cannot_be_controlled_or_does_not_fit_is_refused():
    with pytest.raises(RangeError, match="stabilised"):
        LinearMPC(SPEC, A, torch.zeros(4, 1), Q, R, horizon=2)
    with pytest.raises(RangeError, match="horizon"):
        LinearMPC(SPEC, A, B, Q, R, horizon=0)
    with pytest.raises(RangeError, match="R is"):
        LinearMPC(SPEC, A, B, Q, -R, horizon=2)
    with pytest.raises(ShapeError, match="A"):
        LinearMPC(SPEC, A[:3, :3], B[:3], Q[:3, :3], R, horizon=2)

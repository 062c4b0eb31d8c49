"""Batched quadratic programs with a bounded number of steps, for any number of constraints."""

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.solve.active_set import Rows, from_box, from_minimiser, solve_active_set
from safectl.solve.projection import Candidate, Problem, Projection, band, holds, violation

SOLVER_SHARE = 0.5
"""Share of the rounding band that the solver may use; the rest is for rounding its answer."""


def project_many(problem: Problem) -> Candidate:
    """Project on any number of half-spaces and a box with the dual active-set method.

    Every number of the problem is finite. Not solved where the set is empty. Cost: about one step
    per binding constraint or limit, at most `step_bound(m + 2 nu)`.
    """
    eye = torch.eye(problem.point.shape[0], dtype=problem.point.dtype, device=problem.point.device)
    start = from_box(problem.point, problem.low, problem.high)
    found = solve_active_set(start, _with_limits(problem, eye.unsqueeze(-1)))
    return Candidate(found.point.clamp(problem.low, problem.high), found.solved)


def solve_qp(
    hessian: Float[Tensor, "*batch nu nu"],
    linear: Float[Tensor, "batch nu"],
    constraints: tuple[Float[Tensor, "batch m nu"], Float[Tensor, "batch m"]],
    low: Float[Tensor, " nu"],
    high: Float[Tensor, " nu"],
) -> Projection:
    """Minimise 1/2 u'Pu + q'u subject to A u >= b and low <= u <= high.

    With P = L L' and v = L'u this is the projection of -L^-1 q on the rows [A; I; -I] L'^-1, which
    the dual active-set method solves.

    Args:
        hessian: P, symmetric positive definite, shape (nu, nu) for all rows or (batch, nu, nu).
        linear: q, shape (batch, nu).
        constraints: A, shape (batch, m, nu), and b, shape (batch, m).
        low: Lower limits, shape (nu,), finite, in the units of u.
        high: Upper limits, shape (nu,), finite, in the units of u.

    Returns:
        The minimisers. A row whose set is empty, that is not finite or whose P is not positive
        definite is marked infeasible; its point is the centre of the limits.
    """
    normals, offsets = constraints
    eye = torch.eye(linear.shape[1], dtype=linear.dtype, device=linear.device)
    with torch.no_grad():
        factor, failed = torch.linalg.cholesky_ex(hessian.expand(len(linear), -1, -1))
        numbers = [factor.flatten(1), linear, normals.flatten(1), offsets]
        valid = torch.cat(numbers, dim=1).isfinite().all(-1) & (failed == 0)
        factor = torch.where(valid.reshape(-1, 1, 1), factor, eye)
        back = torch.linalg.solve_triangular(factor.mT, eye.expand_as(factor), upper=True)
        back = back.permute(1, 2, 0).contiguous()
        problem = Problem(
            torch.where(valid, linear.T, 0.0),
            torch.where(valid, normals.permute(1, 2, 0), 0.0),
            torch.where(valid, offsets.T, 0.0),
            low.unsqueeze(-1),
            high.unsqueeze(-1),
        )
        start = -(problem.point.unsqueeze(1) * back).sum(0)
        found = solve_active_set(from_minimiser(start), _with_limits(problem, back))
        point = (back * found.point).sum(1).clamp(problem.low, problem.high)
        feasible = valid & found.solved & holds(point, problem)
        point = torch.where(feasible, point, 0.5 * (problem.low + problem.high))
        residual = torch.where(valid, violation(point, problem), torch.inf)
    return Projection(point.T.contiguous(), feasible, residual)


def _with_limits(problem: Problem, back: Tensor) -> Rows:
    """Constraints and limits as unit rows [A; I; -I] `back`, with their offsets and bands."""
    nu, batch = problem.point.shape
    eye = torch.eye(nu, dtype=back.dtype, device=back.device)
    limits = torch.cat([eye, -eye]).unsqueeze(-1).expand(-1, -1, batch)
    bounds = torch.cat([problem.low, -problem.high]).expand(-1, batch)
    whole = problem._replace(
        normals=torch.cat([problem.normals, limits]), offsets=torch.cat([problem.offsets, bounds])
    )
    rows = (whole.normals.unsqueeze(2) * back).sum(1)
    largest = rows.abs().amax(1, keepdim=True)
    largest = torch.where(largest > 0.0, largest, 1.0)
    rows = rows / largest
    length = (rows * rows).sum(1, keepdim=True).sqrt()
    length = torch.where(length > 0.0, length, 1.0)
    size = (largest * length).squeeze(1)
    return Rows(rows / length, whole.offsets / size, SOLVER_SHARE * band(whole) / size)

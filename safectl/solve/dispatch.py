"""The projection that safeguards and planners call, whatever the number of constraints."""

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.solve.closed_form import one_half_space, one_of_two
from safectl.solve.projection import Candidate, Problem, Projection, holds, select, violation
from safectl.solve.qp import project_many


def project(
    point: Float[Tensor, "batch nu"],
    normals: Float[Tensor, "batch m nu"],
    offsets: Float[Tensor, "batch m"],
    low: Float[Tensor, " nu"],
    high: Float[Tensor, " nu"],
) -> Projection:
    """Return the nearest admissible point per row: A u >= b and low <= u <= high.

    No constraint: a clip. One: a closed form. Two: the closed form where one of them binds, the
    active-set method for the rows where both do. More: the active-set method. A point that is
    admissible already (within `rounding_band`) comes back bit for bit, so projecting twice changes
    nothing. Not differentiated: the result carries no gradient.

    A row with NaN or infinity, with contradicting constraints or with a zero row and a positive
    offset is marked infeasible and disturbs no other row.

    Args:
        point: p, shape (batch, nu), units of the action.
        normals: A, shape (batch, m, nu), in the dtype of the point.
        offsets: b, shape (batch, m), in the units of A u.
        low: Lower limits, shape (nu,), finite, low <= high.
        high: Upper limits, shape (nu,), finite.

    Returns:
        Points, whether they are feasible, and residuals recomputed from the points.

    Raises:
        ShapeError: If the shapes do not fit together.
        RangeError: If the dtypes differ, or a limit is not finite or below its counterpart.
    """
    check_problem(point, normals, offsets, low, high)
    with torch.no_grad():
        middle = 0.5 * (low + high)
        numbers = torch.cat([point, normals.flatten(1), offsets], dim=1)
        finite = numbers.isfinite().all(-1)
        problem = Problem(
            torch.where(point.isfinite(), point, middle).T.contiguous(),
            torch.where(finite, normals.permute(1, 2, 0), 0.0).contiguous(),
            torch.where(finite, offsets.T, 0.0).contiguous(),
            low.unsqueeze(-1),
            high.unsqueeze(-1),
        )
        nearest = problem.point.clamp(problem.low, problem.high)
        feasible = finite & holds(nearest, problem)
        todo = (finite & ~feasible).nonzero().squeeze(-1)
        if todo.numel() > 0:
            rest = select(problem, todo)
            found = _solve(rest)
            good = found.solved & holds(found.point, rest)
            nearest[:, todo] = torch.where(good, found.point, nearest[:, todo])
            feasible[todo] = good
        residual = torch.where(finite, violation(nearest, problem), torch.inf)
        return Projection(nearest.T.contiguous(), feasible, residual)


def check_problem(
    point: Tensor, normals: Tensor, offsets: Tensor, low: Tensor, high: Tensor
) -> None:
    """Refuse shapes that do not fit, mixed dtypes and limits that are no limits; see `project`."""
    batch, nu = point.shape
    m = offsets.shape[-1]
    if normals.shape != (batch, m, nu):
        raise ShapeError("normals", expected=(batch, m, nu), got=normals.shape)
    if offsets.shape != (batch, m):
        raise ShapeError("offsets", expected=(batch, m), got=offsets.shape)
    for name, limit in (("low", low), ("high", high)):
        if limit.shape != (nu,):
            raise ShapeError(name, expected=(nu,), got=limit.shape)
    kinds = {str(part.dtype) for part in (point, normals, offsets, low, high)}
    if len(kinds) > 1:
        raise RangeError("dtypes", value=sorted(kinds), expected="one dtype for all arguments")
    if not bool(((low <= high) & (high - low).isfinite()).all()):
        limits = list(zip(low.tolist(), high.tolist(), strict=True))
        raise RangeError("limits", value=limits, expected="finite, low <= high")


def _solve(problem: Problem) -> Candidate:
    """Pick the cheapest exact method for this number of constraints, at least one."""
    m = problem.offsets.shape[0]
    if m == 1:
        normal, offset = problem.normals[0], problem.offsets[0]
        only = one_half_space(problem.point, normal, offset, problem.low, problem.high)
        return Candidate(only, torch.ones_like(offset, dtype=torch.bool))
    if m > 2:
        return project_many(problem)
    nearest, solved = one_of_two(problem)
    rest = (~solved).nonzero().squeeze(-1)
    if rest.numel() > 0:
        found = project_many(select(problem, rest))
        nearest[:, rest], solved[rest] = found.point, found.solved
    return Candidate(nearest, solved)

"""What a projection returns, the problem it answers, and the evidence recomputed from its point.

Every solver here answers one problem per row of a batch:

    minimise 1/2 |u - p|^2   subject to   A u >= b,   low <= u <= high.

Callers see the batch first. Inside the solvers it is the last axis, so that every operation runs
over contiguous memory; that is four to ten times faster for two to six actions.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

BAND_ULPS = 64.0
"""Width of the rounding band in units of machine epsilon.

Evaluating A u with nu products rounds by up to nu / 2 epsilons of sum |A_i||u_i|, and u itself is
rounded once more: 64 covers 32 actions with a factor of four to spare. Relative to that sum it is
1.4e-14 in float64 and 7.6e-6 in float32.
"""


class Projection(NamedTuple):
    """The nearest admissible point per row, with its evidence.

    Attributes:
        point: Shape (batch, nu), in the units of the action; always finite and within the limits.
            Where `feasible` is false it is the proposal clipped to the limits, and not admissible.
        feasible: Whether `point` solves the problem and was checked to be admissible, (batch,).
        residual: Largest violation of any constraint or limit by `point`, shape (batch,), in the
            units of the constraints; infinity where the problem itself is not finite.
    """

    point: Float[Tensor, "batch nu"]
    feasible: Bool[Tensor, " batch"]
    residual: Float[Tensor, " batch"]


class Problem(NamedTuple):
    """Problems with the batch as the last axis.

    Attributes:
        point: p, shape (nu, batch).
        normals: A, shape (m, nu, batch).
        offsets: b, shape (m, batch).
        low: Lower limits, shape (nu, 1).
        high: Upper limits, shape (nu, 1).
    """

    point: Float[Tensor, "nu batch"]
    normals: Float[Tensor, "m nu batch"]
    offsets: Float[Tensor, "m batch"]
    low: Float[Tensor, "nu 1"]
    high: Float[Tensor, "nu 1"]


class Candidate(NamedTuple):
    """What a solver believes: points (nu, batch), and whether it finished, (batch,)."""

    point: Float[Tensor, "nu batch"]
    solved: Bool[Tensor, " batch"]


def rounding_band(
    normals: Float[Tensor, "batch m nu"], low: Float[Tensor, " nu"], high: Float[Tensor, " nu"]
) -> Float[Tensor, "batch m"]:
    """Return how far A u may fall below b through rounding alone, per constraint.

    A point within the band counts as admissible. Who needs A u >= b as computed adds the band to
    the offsets. It is in the units of the constraints, and zero for a zero row.
    """
    reach = torch.maximum(low.abs(), high.abs())
    return (normals.abs() * reach).sum(-1) * (BAND_ULPS * torch.finfo(normals.dtype).eps)


def band(problem: Problem) -> Float[Tensor, "m batch"]:
    """Return `rounding_band` of problems with the batch last."""
    reach = torch.maximum(problem.low.abs(), problem.high.abs())
    widest = (problem.normals.abs() * reach).sum(1)
    return widest * (BAND_ULPS * torch.finfo(widest.dtype).eps)


def slack(point: Float[Tensor, "nu batch"], problem: Problem) -> Float[Tensor, "m batch"]:
    """Return A u - b, negative where a constraint is violated."""
    return (problem.normals * point).sum(1) - problem.offsets


def holds(point: Float[Tensor, "nu batch"], problem: Problem) -> Bool[Tensor, " batch"]:
    """Return whether a point within the limits meets every constraint up to the rounding band."""
    if problem.offsets.shape[0] == 0:
        return torch.ones_like(point[0], dtype=torch.bool)
    return (slack(point, problem) + band(problem)).amin(0) >= 0.0


def violation(point: Float[Tensor, "nu batch"], problem: Problem) -> Float[Tensor, " batch"]:
    """Return the largest violation of any constraint or limit, zero if there is none."""
    limits = torch.maximum(problem.low - point, point - problem.high)
    return torch.cat([limits, -slack(point, problem)]).amax(0).clamp(min=0.0)


def select(problem: Problem, index: Tensor) -> Problem:
    """Return some problems of a batch, by their indices."""
    point, normals, offsets = problem.point, problem.normals, problem.offsets
    return problem._replace(
        point=point[:, index], normals=normals[..., index], offsets=offsets[:, index]
    )

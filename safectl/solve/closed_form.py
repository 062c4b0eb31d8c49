"""Exact projections on one half-space and a box, and on two where one of them is enough.

With the box kept inside the projection, the point for a multiplier t >= 0 of the constraint
a.u >= b is u(t) = clip(p + t a, low, high), and g(t) = a.u(t) never falls. So the answer is the
smallest t with g(t) >= b. g is linear between the 2 nu values of t at which a coordinate meets a
limit: evaluate g at all of them, keep the two that bracket b, interpolate. No sort, no iteration,
the same work for every row.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.solve.projection import Candidate, Problem, holds


def one_half_space(
    point: Float[Tensor, "nu batch"],
    normal: Float[Tensor, "nu batch"],
    offset: Float[Tensor, " batch"],
    low: Float[Tensor, "nu 1"],
    high: Float[Tensor, "nu 1"],
) -> Float[Tensor, "nu batch"]:
    """Project on {u : a.u >= b, low <= u <= high}, exactly up to rounding.

    Cost: 2 nu evaluations of a.clip(p + t a), 4 nu^2 multiplications.

    Args:
        point: p, shape (nu, batch), units of the action.
        normal: a, shape (nu, batch).
        offset: b, shape (batch,), in the unit of a.u.
        low: Lower limits, shape (nu, 1), finite.
        high: Upper limits, shape (nu, 1), finite.

    Returns:
        The projection, shape (nu, batch). If no point of the box reaches b, a point of the box with
        the largest a.u, which the caller's check refuses.
    """
    scale = normal.abs().amax(0)
    scale = torch.where(scale > 0.0, scale, 1.0)
    unit, target = normal / scale, offset / scale
    times = _meeting_times(point, unit, low, high)
    values = ((point + times.unsqueeze(1) * unit).clamp(low, high) * unit).sum(1)
    reached = values >= target
    before = torch.where(reached, 0.0, times).amax(0)
    after = torch.where(reached, times, torch.inf).amin(0)
    value_before = torch.where(reached, -torch.inf, values).amax(0)
    start = (point.clamp(low, high) * unit).sum(0)
    value_before = torch.maximum(value_before, start)
    rise = torch.where(reached, values, torch.inf).amin(0) - value_before
    share = torch.where(rise > 0.0, (target - value_before) / rise, 0.0).clamp(0.0, 1.0)
    multiplier = torch.where(after < torch.inf, before + share * (after - before), before)
    nearest = (point + multiplier * unit).clamp(low, high)
    return _settle(nearest, torch.where(start < target, unit, 0.0), target, low, high)


def one_of_two(problem: Problem) -> Candidate:
    """Project on two half-spaces and a box where at most one half-space binds.

    The projection on one half-space that also lies in the other is the projection on both. Rows
    where neither does are not solved: both constraints bind there, or the set is empty.
    """
    nu, batch = problem.point.shape
    each = one_half_space(
        problem.point.repeat(1, 2),
        problem.normals.transpose(0, 1).reshape(nu, 2 * batch),
        problem.offsets.reshape(2 * batch),
        problem.low,
        problem.high,
    )
    first, second = each[:, :batch], each[:, batch:]
    is_first = holds(first, problem)
    return Candidate(torch.where(is_first, first, second), is_first | holds(second, problem))


def _meeting_times(point: Tensor, unit: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Multipliers at which a coordinate meets a limit, shape (2 nu, batch), never negative.

    Past 1 / epsilon^2 a coordinate moves by less than epsilon^2 of the row's largest entry per
    unit: it no longer changes a.u. The limit also keeps infinity from meeting a zero entry.
    """
    longest = torch.finfo(point.dtype).eps ** -2
    meeting = torch.cat([(low - point) / unit, (high - point) / unit])
    return torch.where(meeting > 0.0, meeting, 0.0).clamp(max=longest)


def _settle(point: Tensor, unit: Tensor, target: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Remove the rounding of a long step: spread what is missing over the free coordinates.

    Does nothing where `unit` is zero, that is where the constraint does not bind.
    """
    free = torch.where((point > low) & (point < high), unit, 0.0)
    missing = target - (unit * point).sum(0)
    weight = (free * free).sum(0)
    step = torch.where(weight > 0.0, missing / weight, 0.0)
    return (point + step * free).clamp(low, high)

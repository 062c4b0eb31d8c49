"""The quadratic program of one state of a plan, for all states at once.

    minimise |u - q|^2 + |r|^2   subject to   g_i . u + c_i - w r_i >= 0,

with few constraints and unknowns. Shapes: N states, d coordinates, m constraints; the constraint is
the first axis, so that every operation runs over contiguous states.
"""

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.solve.active_set import Rows, from_minimiser, solve_active_set

SINGULAR_ULPS = 16.0
"""Two gradients whose determinant is below so many epsilons of its largest value are parallel."""
FEASIBLE_ULPS = 256.0
"""Violation of a constraint by rounding, in epsilons of |g||u| + |c|."""
SOFTNESS = 1e-2
"""w of the second attempt where hard constraints contradict each other."""


def nearest_displacement(
    wanted: Float[Tensor, "N d"],
    gradients: Float[Tensor, "m N d"],
    offsets: Float[Tensor, "m N"],
    weight: float = 0.0,
) -> Float[Tensor, "N d"]:
    """Return the solution u: a closed form for one or two constraints.

    With more hard constraints in the plane every active set of at most two is tried; beyond that
    the dual active-set method solves it. Where hard constraints contradict each other, u violates
    some of them: the caller's certificate says so.

    Args:
        wanted: q, the displacement that the denoiser proposes.
        gradients: g, gradients of the barriers.
        offsets: c.
        weight: w >= 0; 0 makes the constraints hard.
    """
    m, _, d = gradients.shape
    if m == 0:
        return wanted
    if m == 1:
        return _one(wanted, gradients[0], offsets[0], weight)
    if m == 2:
        return _two(wanted, gradients, offsets, weight)
    if weight == 0.0 and d == 2:
        return _enumerate(wanted, gradients, offsets)
    return _active_set(wanted, gradients, offsets, weight)


def _one(wanted: Tensor, gradient: Tensor, offset: Tensor, weight: float) -> Tensor:
    """Return u = q + g [-(g.q + c)]+ / (g.g + w^2)."""
    missing = (-(gradient * wanted).sum(-1) - offset).clamp(min=0.0)
    size = (gradient * gradient).sum(-1) + weight * weight
    share = torch.where(size > 0.0, missing / size, 0.0)
    return wanted + share.unsqueeze(-1) * gradient


def _two(wanted: Tensor, gradients: Tensor, offsets: Tensor, weight: float) -> Tensor:
    """Try no multiplier, either one, then both, with G = g_i.g_j + w^2 I."""
    missing = -(gradients * wanted).sum(-1) - offsets
    own = (gradients * gradients).sum(-1) + weight * weight
    mixed = (gradients[0] * gradients[1]).sum(-1)
    single = torch.where(own > 0.0, missing.clamp(min=0.0) / own, 0.0)
    first, second = single.unbind()
    # One multiplier is enough where the other constraint then holds by itself.
    only_first = mixed * first >= missing[1]
    only_second = mixed * second >= missing[0]
    largest = own[0] * own[1]
    smallest = SINGULAR_ULPS * torch.finfo(wanted.dtype).eps
    determinant = torch.maximum(largest - mixed * mixed, smallest * largest)
    both = torch.where(
        determinant > 0.0, (own.flip(0) * missing - mixed * missing.flip(0)) / determinant, 0.0
    )
    zero = torch.zeros_like(first)
    multiplier = torch.where(
        only_first,
        torch.stack([first, zero]),
        torch.where(only_second, torch.stack([zero, second]), both.clamp(min=0.0)),
    )
    return torch.addcmul(
        torch.addcmul(wanted, multiplier[0].unsqueeze(-1), gradients[0]),
        multiplier[1].unsqueeze(-1),
        gradients[1],
    )


def _enumerate(wanted: Tensor, gradients: Tensor, offsets: Tensor) -> Tensor:
    """Take the feasible candidate nearest to q: itself, one constraint active, or two (d = 2)."""
    candidates = [wanted]
    candidates += [
        _one(wanted, gradient, offset, 0.0)
        for gradient, offset in zip(gradients, offsets, strict=True)
    ]
    for i, j in combinations(range(len(gradients)), 2):
        (a, b), (c, d) = gradients[i].unbind(-1), gradients[j].unbind(-1)
        determinant = a * d - b * c
        reach = a.hypot(b) * c.hypot(d) * SINGULAR_ULPS * torch.finfo(wanted.dtype).eps
        safe = torch.where(determinant.abs() > reach, determinant, torch.inf)
        first, second = -offsets[i], -offsets[j]
        corner = torch.stack([(first * d - b * second) / safe, (a * second - first * c) / safe], -1)
        candidates.append(corner)
    points = torch.stack(candidates)  # (K, N, 2)
    along = torch.einsum("mnd,knd->kmn", gradients, points)
    reach = torch.einsum("mnd,knd->kmn", gradients.abs(), points.abs()) + offsets.abs()
    rounding = FEASIBLE_ULPS * torch.finfo(wanted.dtype).eps * reach
    violation = (-(along + offsets) - rounding).amax(1).clamp(min=0.0)
    distance = (points - wanted).square().sum(-1)
    # A feasible candidate beats every other; else the least violation wins.
    cost = torch.where(violation > 0.0, torch.inf, distance)
    best = torch.where(cost.amin(0) < torch.inf, cost.argmin(0), violation.argmin(0))
    return points.gather(0, best.reshape(1, -1, 1).expand(1, -1, 2)).squeeze(0)


def _active_set(wanted: Tensor, gradients: Tensor, offsets: Tensor, weight: float) -> Tensor:
    """Project (q, 0) on the constraints of (u, r) with the dual active-set method."""
    found, solved = _lifted(wanted, gradients, offsets, weight)
    if weight == 0.0 and not bool(solved.all()):
        soft, _ = _lifted(wanted, gradients, offsets, SOFTNESS)
        return torch.where(solved.unsqueeze(-1), found, soft)
    return found


def _lifted(
    wanted: Tensor, gradients: Tensor, offsets: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    m, states, d = gradients.shape
    normals = gradients.permute(0, 2, 1)
    point = wanted.T
    if weight > 0.0:
        slack = -weight * torch.eye(m, dtype=wanted.dtype, device=wanted.device)
        normals = torch.cat([normals, slack.unsqueeze(-1).expand(-1, -1, states)], dim=1)
        point = torch.cat([point, point.new_zeros(m, states)])
    length = normals.square().sum(1).sqrt()
    unit = torch.where(length > 0.0, length, 1.0)
    bound = -offsets / unit
    band = FEASIBLE_ULPS * torch.finfo(wanted.dtype).eps * (1.0 + bound.abs())
    rows = Rows((normals / unit.unsqueeze(1)).contiguous(), bound.contiguous(), band)
    found = solve_active_set(from_minimiser(point.contiguous()), rows)
    return found.point[:d].T.contiguous(), found.solved

"""Figures of plans and rollouts as pure functions, those of SafeFlowMatcher (ICLR 2026).

Positions have the shape (batch, H, 2). Safety is measured elsewhere: by
`Specification.segment_values` on the returned positions.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safectl.errors import UnknownNameError
from safectl.planners.diffusion_planner import JUMP

_LEAST = 1e-12  # of a product of three distances; below, the points coincide
REFERENCES: Mapping[str, tuple[float, float]] = {
    "Maze2dUmaze": (23.85, 161.86),
    "Maze2dMedium": (13.13, 277.39),
    "Maze2dLarge": (6.7, 273.99),
    "Hopper": (-20.272305, 3234.3),
    "Walker2d": (1.629008, 4592.3),
}
"""Return that counts as 0 and as 1, from D4RL."""


def normalised_score(total: Float[Tensor, " episodes"], world: str) -> Float[Tensor, " episodes"]:
    """Return (total - low) / (high - low), as a ratio: D4RL often prints 100 times that.

    Raises:
        UnknownNameError: If there is no reference for the world.
    """
    if world not in REFERENCES:
        raise UnknownNameError("reference score", world, known=tuple(REFERENCES))
    low, high = REFERENCES[world]
    return (total - low) / (high - low)


def jumps(
    positions: Float[Tensor, "batch H 2"], *, longest: float = JUMP
) -> Int64[Tensor, " batch"]:
    """Count consecutive positions that are further apart than `longest`, in normalised units.

    A plan with one is trapped once, one with two is trapped twice (SafeFlowMatcher, ICLR 2026).
    """
    step: Tensor = torch.linalg.vector_norm(positions.diff(dim=1), dim=-1)
    return (step > longest).sum(1)


def trap_rates(positions: Float[Tensor, "batch H 2"]) -> tuple[float, float]:
    """Return the shares of plans with at least one and with at least two jumps."""
    count = jumps(positions)
    return float((count >= 1).double().mean()), float((count >= 2).double().mean())


def curvature(positions: Float[Tensor, "batch H 2"]) -> Float[Tensor, " batch"]:
    """Return the mean of 4 area / (a b c) over consecutive triples [1 / unit]; 0 where they meet.

    That is one over the radius of the circle through the three points.
    """
    one, two = positions[:, 1:-1] - positions[:, :-2], positions[:, 2:] - positions[:, 1:-1]
    across = positions[:, 2:] - positions[:, :-2]
    area = 0.5 * (one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0]).abs()
    sides = one.norm(dim=-1) * two.norm(dim=-1) * across.norm(dim=-1)
    return torch.where(sides > _LEAST, 4.0 * area / sides.clamp(min=_LEAST), 0.0).mean(1)


def acceleration(positions: Float[Tensor, "batch H 2"], period: float) -> Float[Tensor, " batch"]:
    """Return the mean norm of the second difference over period^2 [unit / s^2]."""
    change: Tensor = torch.linalg.vector_norm(positions.diff(n=2, dim=1), dim=-1)
    return change.mean(1) / period**2

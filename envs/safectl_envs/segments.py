"""Distances between segments in the plane, in batches."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_TINY = 1e-12  # [m^2]: the square root has a gradient there


def point_distance(
    point: Float[Tensor, "*#batch 2"],
    start: Float[Tensor, "*#batch 2"],
    end: Float[Tensor, "*#batch 2"],
) -> Float[Tensor, "..."]:
    """Return the distance between a point and a segment [m]; shapes broadcast."""
    along, offset = end - start, point - start
    share = (offset * along).sum(-1) / (along * along).sum(-1).clamp_min(_TINY)
    nearest = start + share.clamp(0.0, 1.0).unsqueeze(-1) * along
    return (point - nearest).square().sum(-1).clamp_min(_TINY).sqrt()


def segment_distance(
    start: Float[Tensor, "*#batch 2"],
    end: Float[Tensor, "*#batch 2"],
    other_start: Float[Tensor, "*#batch 2"],
    other_end: Float[Tensor, "*#batch 2"],
) -> Float[Tensor, "..."]:
    """Return the distance between two segments [m], zero where they cross; shapes broadcast."""
    mine = torch.minimum(
        point_distance(start, other_start, other_end), point_distance(end, other_start, other_end)
    )
    theirs = torch.minimum(
        point_distance(other_start, start, end), point_distance(other_end, start, end)
    )
    crossed = _apart(start, end, other_start, other_end)
    crossed = crossed & _apart(other_start, other_end, start, end)
    return torch.where(crossed, 0.0, torch.minimum(mine, theirs))


def _apart(one: Tensor, two: Tensor, start: Tensor, end: Tensor) -> Bool[Tensor, "..."]:
    """Do two points lie on different sides of the line through a segment?"""
    return _turn(start, end, one) * _turn(start, end, two) < 0.0


def _turn(start: Tensor, end: Tensor, point: Tensor) -> Tensor:
    (ax, ay), (bx, by) = (end - start).unbind(-1), (point - start).unbind(-1)
    return ax * by - ay * bx

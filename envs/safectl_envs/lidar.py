"""The pseudo-lidar of Safety-Gym: how close the nearest thing is, per direction."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def pseudo_lidar(
    relative: Float[Tensor, "batch objects 2"],
    heading: Float[Tensor, " batch"],
    *,
    bins: int,
    reach: float,
) -> Float[Tensor, "batch bins"]:
    """Return the closeness that the objects show in each bin, the maximum over the objects.

    An object at distance d has the closeness c = max(0, reach - d) / reach. The bin that holds its
    bearing gets c; with s in [0, 1) the place of the bearing inside the bin, the next bin gets s c
    and the one before (1 - s) c (Ray et al., 2019, `obs_lidar_pseudo` with aliasing). As a function
    of the angular distance a between the bearing and a bin's middle, in bins, all three are
    c * clamp(1.5 - a, 0, 1) = max(0, min(c, 1.5 c - c a)).

    Args:
        relative: Positions seen from the robot in world axes, shape (batch, objects, 2), [m].
        heading: Direction of the robot, shape (batch,), [rad]; bin 0 begins there, and bins follow
            counter-clockwise.
        bins: Number of bins, at least 4.
        reach: Range [m].

    Returns:
        Closeness, shape (batch, bins), with the batch contiguous in memory; fastest if `relative`
        is so too. No gradient: the inner loop writes in place.
    """
    x, y = relative.permute(2, 1, 0).contiguous()
    closeness = (1.0 - (x * x + y * y).sqrt_() / reach).clamp_(min=0.0)
    turns = (torch.atan2(y, x) - heading).mul_(0.5 / math.pi)
    places = turns.sub_(turns.floor()).mul_(bins)
    # With one bin more at each end, a is a plain difference; these two are bins of the other end.
    middles = torch.arange(-0.5, bins + 1.0, device=relative.device, dtype=relative.dtype)
    middles = middles.unsqueeze(-1)
    # The inner loop: object by object and in place, so that the tensors stay in the cache.
    shown = relative.new_zeros(bins + 2, len(relative))
    side = torch.empty_like(shown)
    for place, c, start in zip(places, closeness, 1.5 * closeness, strict=True):
        torch.sub(place, middles, out=side).abs_()
        torch.addcmul(start, c, side, value=-1.0, out=side)
        torch.maximum(shown, torch.minimum(side, c, out=side), out=shown)
    shown[1].clamp_(min=shown[-1])
    shown[-2].clamp_(min=shown[0])
    return shown[1:-1].T

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
) -> Float[Tensor, "batch objects bins"]:
    """Return the closeness that each object shows in each bin; take the maximum over objects.

    An object at distance d has the closeness c = max(0, reach - d) / reach. The bin that holds its
    bearing gets c; with s in [0, 1) the place of the bearing inside the bin, the next bin gets s c
    and the one before (1 - s) c (Ray et al., 2019, `obs_lidar_pseudo` with aliasing). As a function
    of the angular distance a between the bearing and a bin's middle, in bins, all three are
    c * clamp(1.5 - a, 0, 1).

    Args:
        relative: Positions seen from the robot in world axes, shape (batch, objects, 2), [m].
        heading: Direction of the robot, shape (batch,), [rad]; bin 0 begins there, and bins follow
            counter-clockwise.
        bins: Number of bins, at least 4.
        reach: Range [m].
    """
    closeness = (1.0 - relative.norm(dim=-1) / reach).clamp(min=0.0)
    bearing = torch.atan2(relative[..., 1], relative[..., 0]) - heading.unsqueeze(-1)
    place = torch.remainder(bearing * (bins / (2.0 * math.pi)), bins)
    middle = torch.arange(bins, device=relative.device, dtype=relative.dtype) + 0.5
    # min(a, bins - a) = bins / 2 - | a - bins / 2 |, written in place: this is the inner loop.
    apart = (place.unsqueeze(-1) - middle).abs_().sub_(0.5 * bins).abs_()
    return apart.sub_(0.5 * bins - 1.5).clamp_(0.0, 1.0).mul_(closeness.unsqueeze(-1))

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
        Closeness, shape (batch, bins). This is fastest where the batch is the contiguous axis in
        memory, of `relative` as of the result.
    """
    x, y = (axis.T for axis in relative.unbind(-1))
    closeness = (1.0 - torch.hypot(x, y) / reach).clamp(min=0.0)
    turns = (torch.atan2(y, x) - heading) / (2.0 * math.pi)
    places = (turns - turns.floor()) * bins
    # With one bin more at each end, a is a plain difference; these two are bins of the other end.
    middles = torch.arange(-0.5, bins + 1.0, device=relative.device, dtype=relative.dtype)
    shown = relative.new_zeros(bins + 2, len(relative))
    # The inner loop: object by object, so that its tensors stay in the cache of a processor.
    for place, most, start in zip(places, closeness, 1.5 * closeness, strict=True):
        apart = (place - middles.unsqueeze(-1)).abs_()
        shown = torch.maximum(shown, torch.addcmul(start, most, apart, value=-1.0).minimum(most))
    first = torch.maximum(shown[1], shown[-1])
    last = torch.maximum(shown[-2], shown[0])
    return torch.cat([first.unsqueeze(0), shown[2:-2], last.unsqueeze(0)]).T

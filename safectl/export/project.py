"""Exact projection on one half-space and a box, in float32, as the generated C does it.

minimise |u - p|^2  subject to  a . u >= b,  low <= u <= high.  The solution is
u(t) = clip(p + t a) with the smallest t >= 0 for which g(t) = a . u(t) reaches b (optimality
conditions, t the multiplier of the half-space). g is nondecreasing and linear between the 2 nu
values of t at which an entry meets a limit, so the root is bracketed by evaluating g at all of them
and found by interpolation. The work is fixed: 2 nu evaluations of nu entries, no sorting.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from safectl.export.arithmetic import clip, dot
from safectl.export.ops import Array
from safectl.types import Status

LIFTS = tuple(np.array([2.0**-22, 2.0**-20, 2.0**-18], np.float32))
"""Fractions of the way to the best vertex by which an answer that misses the half-space by rounding
is moved: first two units in the last place of the box width, then four times as far, and again."""

_FLT_MAX = np.finfo(np.float32).max


class HalfSpace(NamedTuple):
    """The constraint normal . u >= offset, one per row.

    Attributes:
        normal: Gradient a, shape (batch, nu).
        offset: Bound b, shape (batch,), in the unit of the constraint.
        backoff: Corrections aim at offset + backoff; what meets the offset is kept. Shape (batch,),
            zero or more.
    """

    normal: Array
    offset: Array
    backoff: Array


@np.errstate(all="ignore")  # overflow and 0 / 0 occur in rows whose result is not selected
def project_halfspace_box(
    proposal: Array, half_space: HalfSpace, low: Array, high: Array
) -> tuple[Array, Array, npt.NDArray[np.int8]]:
    """Find the nearest action with normal . u >= offset and low <= u <= high.

    Args:
        proposal: Action p, shape (batch, nu).
        half_space: The constraint.
        low: Lower limits, shape (nu,).
        high: Upper limits, shape (nu,).

    Returns:
        Action (batch, nu), margin normal . u - offset (batch,) recomputed from it, and status
        (batch,): `KEPT` if the proposal is returned bit for bit, `CORRECTED` with a margin >= 0,
        or `FALLBACK` with the least violating vertex of the box where no action satisfies the
        half-space. NaN in an input of a row makes its action or margin NaN.
    """
    normal, offset = half_space.normal, half_space.offset
    target = offset + half_space.backoff
    inside = clip(proposal, low, high)
    start = dot(normal, inside)
    vertex = np.where(normal == 0, inside, np.where(normal > 0, high, low))
    best = dot(normal, vertex)
    multiplier = _multiplier(proposal, normal, target, low, high, start=start, best=best)
    lifted = clip(proposal + multiplier[:, None] * normal, low, high)
    for lift in LIFTS:
        reached = dot(normal, lifted)
        fraction = (offset - reached) / (best - reached)
        fraction = fraction + fraction + lift
        moved = clip(lifted + fraction[:, None] * (vertex - lifted), low, high)
        lifted = np.where((reached < offset)[:, None], moved, lifted)
    lifted = np.where((dot(normal, lifted) < offset)[:, None], vertex, lifted)

    holds, possible = start >= offset, best >= offset
    action = np.where((best >= target)[:, None], lifted, vertex)
    action = np.where(holds[:, None], inside, action)
    kept = holds & (inside == proposal).all(axis=1)
    status = np.where(holds | possible, np.int8(Status.CORRECTED), np.int8(Status.FALLBACK))
    status = np.where(kept, np.int8(Status.KEPT), status)
    return action, dot(normal, action) - offset, status


def _multiplier(
    proposal: Array,
    normal: Array,
    target: Array,
    low: Array,
    high: Array,
    *,
    start: Array,
    best: Array,
) -> Array:
    """Return t with g(t) = target, given g(0) = start < target <= best, shape (batch,)."""
    left, left_value = np.zeros_like(target), start
    right, right_value = np.full_like(target, _FLT_MAX), best
    for i in range(proposal.shape[1]):
        for limit in (low[i], high[i]):
            t: Array = (limit - proposal[:, i]) / normal[:, i]
            t = np.where(normal[:, i] == 0, np.float32(0), clip(t, np.float32(0), _FLT_MAX))
            value = dot(normal, clip(proposal + t[:, None] * normal, low, high))
            below = (value < target) & (t >= left)
            above = (value >= target) & (t <= right)
            left, left_value = np.where(below, t, left), np.where(below, value, left_value)
            right, right_value = np.where(above, t, right), np.where(above, value, right_value)
    share = (target - left_value) / (right_value - left_value)
    result: Array = left + share * (right - left)
    return result

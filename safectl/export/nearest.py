"""Taking the nearest of several actions that is admissible, in float32, as the C does it."""

import numpy as np
import numpy.typing as npt

from safectl.export.arithmetic import clip
from safectl.export.ops import Array
from safectl.export.selection import UNKNOWN
from safectl.types import Status


def nearest_admissible(
    proposal: Array, points: Array, room: Array, low: Array, high: Array
) -> tuple[Array, Array, npt.NDArray[np.int8]]:
    """Choose the admissible action that is nearest to the proposal, the first of equally near ones.

    An action is admissible if its constraint values are finite and zero or more, and it is within
    the limits. Where none is, the one whose smallest value is largest is the fallback, of equal
    ones the first point, and the proposal last; where no value is finite, the first point. The
    margin is `UNKNOWN` there, and where the limits change a fallback.

    Args:
        proposal: Within the limits, shape (batch, nu).
        points: Further actions, shape (batch, count, nu).
        room: Constraint values of the proposal and of the points, shape (batch, 1 + count, m).
        low: Lower limits, shape (nu,).
        high: Upper limits, shape (nu,).

    Returns:
        The action, the smallest of its constraint values, and the status: `KEPT` for the proposal,
        `CORRECTED` for a point, `FALLBACK` where none is admissible.
    """
    choices = np.concatenate([proposal[:, None], points], 1)
    known = np.isfinite(room).all(-1)
    least = room[..., 0]
    for i in range(1, room.shape[2]):
        least = np.where(room[..., i] < least, room[..., i], least)
    within = ((choices >= low) & (choices <= high)).all(-1)
    holds = known & within & (least >= 0)
    distance = np.zeros(least.shape, np.float32)
    for j in range(choices.shape[2]):
        away = choices[..., j] - proposal[:, None, j]
        distance = distance + away * away
    nearest = np.where(holds, distance, np.inf).argmin(1)
    last = np.roll(np.where(known, least, -np.inf), -1, 1)
    loosest = (last.argmax(1) + 1) % choices.shape[1]
    found, some = np.any(holds, axis=1), np.any(known, axis=1)
    index = np.where(found, nearest, np.where(some, loosest, 1 % choices.shape[1]))
    rows = np.arange(len(proposal))
    margin = np.where(some & within[rows, index], least[rows, index], UNKNOWN)
    status = np.where(index == 0, np.int8(Status.KEPT), np.int8(Status.CORRECTED))
    return (
        clip(choices[rows, index], low, high),
        margin,
        np.where(found, status, np.int8(Status.FALLBACK)),
    )

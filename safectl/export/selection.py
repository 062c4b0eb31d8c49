"""Choosing among candidate actions by their constraint values, in float32, as the C does it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from safectl.export.arithmetic import clip
from safectl.export.ops import Array
from safectl.types import Status

UNKNOWN = -np.finfo(np.float32).max
"""Margin of an action about which nothing is known: `program.MARGIN_UNKNOWN`."""

_HALF, _ONE = np.float32(0.5), np.float32(1.0)
_Flags = npt.NDArray[np.bool_]


def admissible(room: Array) -> _Flags:
    """Return where every constraint value (batch, m) is zero or more; NaN is not."""
    flags: _Flags = np.all(room >= 0, axis=1)
    return flags


def keep_admissible(action: Array, room: Array, other: Array) -> Array:
    """Return the action (batch, nu) where its constraint values are zero or more, or the other."""
    return np.where(admissible(room)[:, None], action, other)


@np.errstate(all="ignore")  # 0 / 0 occurs in rows whose result is not selected
def retreat(
    point: Array, room: Array, reserve: Array, reserve_room: Array, backoff: Array
) -> Array:
    """Move towards an admissible reserve, to where the secant of each violated constraint is zero.

    Args:
        point: Action, shape (batch, nu).
        room: Constraint values at the point, shape (batch, m).
        reserve: Action, shape (batch, nu).
        reserve_room: Constraint values at the reserve, shape (batch, m).
        backoff: Constraint value that is aimed at, at most half of the reserve's, shape
            (batch, m).

    Returns:
        The point where it is admissible or the reserve is not.
    """
    usable, share = admissible(reserve_room), np.ones(len(point), np.float32)
    for i in range(room.shape[1]):
        half = _HALF * reserve_room[:, i]
        aim = np.where(backoff[:, i] < half, backoff[:, i], half)
        wanted = (reserve_room[:, i] - aim) / (reserve_room[:, i] - room[:, i])
        share = np.where((room[:, i] < 0) & (wanted < share), wanted, share)
    moves = usable & (share < _ONE)
    return np.where(moves[:, None], reserve + share[:, None] * (point - reserve), point)


def first_admissible(
    candidates: Sequence[tuple[Array, Array]], low: Array, high: Array
) -> tuple[Array, Array, npt.NDArray[np.int8]]:
    """Choose the first candidate that meets its constraints and the limits, else the last one.

    Args:
        candidates: At least two pairs of an action (batch, nu) and its constraint values
            (batch, m): the proposal, corrections, the fallback.
        low: Lower limits, shape (nu,).
        high: Upper limits, shape (nu,).

    Returns:
        The action within the limits, the smallest of its constraint values, and the status: `KEPT`
        for the first, `FALLBACK` for the last, `CORRECTED` between. The margin of a fallback whose
        values are not finite, or which the limits change, is `UNKNOWN`.
    """
    action, room = candidates[-1]
    limited = clip(action, low, high)
    known = np.isfinite(room).all(axis=1) & (limited == action).all(axis=1)
    margin = np.where(known, _smallest(room), UNKNOWN)
    status = np.full(len(action), np.int8(Status.FALLBACK))
    for index in reversed(range(len(candidates) - 1)):
        action, room = candidates[index]
        chosen = admissible(room) & ((action >= low) & (action <= high)).all(axis=1)
        limited = np.where(chosen[:, None], action, limited)
        margin = np.where(chosen, _smallest(room), margin)
        status = np.where(chosen, np.int8(Status.KEPT if index == 0 else Status.CORRECTED), status)
    return limited, margin, status


def rate_window(previous: Array, step: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Return the limits of an action that may differ by `step` from the one before."""
    inside = clip(previous, low, high)
    below, above = inside - step, inside + step
    return np.where(below < low, low, below), np.where(above > high, high, above)


def _smallest(room: Array) -> Array:
    """Return the first smallest entry of each row, so that a zero keeps its sign."""
    least = room[:, 0]
    for i in range(1, room.shape[1]):
        least = np.where(room[:, i] < least, room[:, i], least)
    return least


def remember(
    action: Array,
    status: Array,
    held: Array,
    left: Array,
    patience: np.float32,
    cost: np.float32,
) -> tuple[Array, Array]:
    """Return the last certified action, and how often it may still be repeated.

    Args:
        action: Of this step, shape (batch, n).
        status: `Status` of this step as a number, shape (batch, 1).
        held: Last certified action before, shape (batch, n).
        left: Repetitions left before, shape (batch, 1).
        patience: Repetitions after a certified action.
        cost: What one repetition takes of it; zero without a limit.
    """
    certified = status != np.float32(Status.FALLBACK)
    fewer = left - cost
    rest = np.where(fewer > 0, fewer, np.float32(0))
    return np.where(certified, action, held), np.where(certified, patience, rest)

"""Exact projection on several half-spaces and a box, in float32, as the generated C does it.

minimise |u - p|^2  subject to  r + A (u - q) >= backoff,  low <= u <= high: constraints that are
known by their values r and gradients A at a point q. The method is that of `solve/active_set.py`,
the dual active-set method of Goldfarb and Idnani, step by step with the roundings of the C. Its
arrays have fixed sizes and its loop a fixed bound; the C leaves the loop once a row is done.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from safectl.export.arithmetic import clip, dot, reciprocal_root
from safectl.export.ops import Array

BAND = np.float32(2.0**-18)
"""Violation that counts as none, relative to sum |a_i| max(|low_i|, |high_i|): 32 units of
rounding, the share that `solve/qp.py` gives its solver."""
DEPENDENT = np.float32(2.0**-17)
"""A unit row closer than this to the span of the active rows is dependent on them: 64 units."""

_LARGEST = np.finfo(np.float32).max
_Flags = npt.NDArray[np.bool_]
_Index = npt.NDArray[np.intp]


class Planes(NamedTuple):
    """Constraints room + normals . (u - point) >= backoff, m per row.

    Attributes:
        point: q, shape (batch, nu).
        room: r, shape (batch, m), in the units of the constraints.
        normals: A, shape (batch, m, nu).
        backoff: How far inside corrections aim, shape (batch, m), zero or more.
    """

    point: Array
    room: Array
    normals: Array
    backoff: Array


class _Rows(NamedTuple):
    """Unit rows n . u >= d - band: the constraints, then the lower and the upper limits."""

    normals: Array  # (batch, k, nu)
    offsets: Array  # (batch, k)
    band: Array  # (batch, k)


class _State(NamedTuple):
    """What the C keeps between two steps, by slot; see `solve/active_set.py`."""

    point: Array  # (batch, nu)
    rows: Array  # (batch, nu, nu)
    inverse: Array  # (batch, nu, nu)
    offsets: Array  # (batch, nu)
    multipliers: Array  # (batch, nu)
    used: _Flags  # (batch, nu)
    entering: _Index  # (batch,), -1 if none
    pressure: Array  # (batch,)


@np.errstate(all="ignore")  # overflow and 0 / 0 occur in rows whose result is not selected
def project_polytope_box(
    start: Array, planes: Planes, low: Array, high: Array, steps: int
) -> tuple[Array, Array]:
    """Find the point nearest to `start` that meets all constraints and the limits.

    Args:
        start: p, shape (batch, nu).
        planes: The constraints, at least one.
        low: Lower limits, shape (batch, nu).
        high: Upper limits, shape (batch, nu).
        steps: Bound of the loop.

    Returns:
        The point, and the corner of the box where that constraint is best which is worst at its
        best, both (batch, nu). Where the constraints contradict each other, or the bound is met,
        the point is the corner. A row that is not finite returns the clipped start twice.
    """
    inside = clip(start, low, high)
    rows = _unit_rows(planes, low, high)
    finite: _Flags = np.all(np.isfinite(start), axis=1) & np.isfinite(rows.normals).all((1, 2))
    finite &= np.isfinite(rows.offsets).all(1) & np.isfinite(rows.band).all(1)
    corner = np.where(finite[:, None], _corner(planes, inside, low, high), inside)
    state = _start(start, inside)
    answer, going = np.where(finite[:, None], corner, inside), finite
    for _ in range(steps):
        if not going.any():
            break
        state, satisfied = _choose(state, rows)
        answer = np.where((going & satisfied)[:, None], clip(state.point, low, high), answer)
        going = going & ~satisfied
        state, blocked = _advance(state, rows)
        going = going & ~blocked
    return answer, corner


def _unit_rows(planes: Planes, low: Array, high: Array) -> _Rows:
    batch, m, nu = planes.normals.shape
    reach = np.maximum(np.abs(low), np.abs(high))
    normals = np.zeros((batch, m + 2 * nu, nu), np.float32)
    offsets = np.concatenate([np.zeros((batch, m), np.float32), low, -high], axis=1)
    band = np.concatenate([np.zeros((batch, m), np.float32), *[BAND * reach] * 2], axis=1)
    for j in range(nu):
        normals[:, m + j, j], normals[:, m + nu + j, j] = 1.0, -1.0
    largest = np.abs(planes.normals).max(axis=2)
    largest = np.where(largest > 0, largest, np.float32(1))
    scaled = planes.normals / largest[..., None]
    square = dot(scaled, scaled)
    inverse = reciprocal_root(np.where(square > 0, square, np.float32(1)))
    share = inverse / largest
    along = dot(planes.normals, planes.point[:, None])
    normals[:, :m] = scaled * inverse[..., None]
    offsets[:, :m] = ((along - planes.room) + planes.backoff) * share
    band[:, :m] = (BAND * dot(np.abs(planes.normals), reach[:, None])) * share
    return _Rows(normals, offsets, band)


def _corner(planes: Planes, inside: Array, low: Array, high: Array) -> Array:
    normals = planes.normals
    best = np.where(normals > 0, high[:, None], low[:, None])
    best = np.where(normals == 0, inside[:, None], best)
    values = planes.room + dot(normals, best - planes.point[:, None])
    corner: Array = best[np.arange(len(best)), _smallest(values)[1]]
    return corner


def _start(start: Array, inside: Array) -> _State:
    """Begin at the projection on the box, with the limits that bind as active rows."""
    batch, nu = start.shape
    shift = inside - start
    sign = np.where(shift > 0, np.float32(1), np.where(shift < 0, np.float32(-1), np.float32(0)))
    rows = np.zeros((batch, nu, nu), np.float32)
    rows[:, np.arange(nu), np.arange(nu)] = sign
    none = np.full(batch, -1)
    zero = np.zeros(batch, np.float32)
    return _State(inside, rows, rows, sign * inside, np.abs(shift), sign != 0, none, zero)


def _choose(state: _State, rows: _Rows) -> tuple[_State, _Flags]:
    """Tighten the active rows, then pick the most violated row; also say where none is left."""
    missing = state.offsets - dot(state.rows, state.point[:, None])
    point = state.point + _combine(missing, state.inverse)
    slack = (dot(rows.normals, point[:, None]) - rows.offsets) + rows.band
    worst, row = _smallest(slack)
    pending = state.entering >= 0
    entering = np.where(pending, state.entering, row)
    return state._replace(point=point, entering=entering), ~pending & (worst >= 0)


def _advance(state: _State, rows: _Rows) -> tuple[_State, _Flags]:
    """Step until the entering row is met or a multiplier reaches zero; say where neither can be."""
    index = np.arange(len(state.point))
    normal, offset = rows.normals[index, state.entering], rows.offsets[index, state.entering]
    dual = dot(state.inverse, normal[:, None])
    primal = normal - _combine(dual, state.rows)
    rest = dot(state.inverse, primal[:, None])
    primal = primal - _combine(rest, state.rows)
    dual = dual + rest
    length = dot(primal, primal)
    independent = (length > DEPENDENT * DEPENDENT) & ~state.used.all(axis=1)
    missing = offset - dot(normal, state.point)
    missing = np.where(missing > 0, missing, np.float32(0))
    full = np.where(independent, missing / length, _LARGEST)
    falling = state.used & (dual > DEPENDENT)
    partial, leaving = _smallest(np.where(falling, state.multipliers / dual, _LARGEST))
    adds = full <= partial
    step = np.where(adds, full, partial)
    blocked = ~(step < _LARGEST)
    moved = np.where(independent[:, None], step[:, None] * primal, np.float32(0))
    reduced = state.multipliers - step[:, None] * dual
    state = state._replace(
        point=state.point + moved,
        multipliers=np.where(reduced > 0, reduced, np.float32(0)),
        pressure=state.pressure + step,
    )
    slot = np.where(adds, np.argmin(state.used, axis=1), leaving)
    line = np.where(adds[:, None], primal / length[:, None], state.inverse[index, slot])
    weight = np.where(adds[:, None], dual, _share(state.inverse, slot))
    return _exchange(state, slot, adds, (normal, offset), (line, weight)), blocked


def _share(inverse: Array, slot: _Index) -> Array:
    gone = inverse[np.arange(len(inverse)), slot]
    result: Array = dot(inverse, gone[:, None]) / dot(gone, gone)[:, None]
    return result


def _exchange(
    state: _State,
    slot: _Index,
    adds: _Flags,
    entering: tuple[Array, Array],
    change: tuple[Array, Array],
) -> _State:
    """Put the entering row in a slot, or empty the slot; one outer product on N* either way."""
    (normal, offset), (line, weight) = entering, change
    index = np.arange(len(slot))
    zero = np.float32(0)
    inverse = state.inverse - weight[:, :, None] * line[:, None, :]
    inverse[index, slot] = np.where(adds[:, None], line, zero)
    rows, used = state.rows.copy(), state.used.copy()
    rows[index, slot] = np.where(adds[:, None], normal, zero)
    used[index, slot] = adds
    offsets, multipliers = state.offsets.copy(), state.multipliers.copy()
    offsets[index, slot] = np.where(adds, offset, zero)
    multipliers[index, slot] = np.where(adds, state.pressure, zero)
    return state._replace(
        rows=rows,
        inverse=inverse,
        offsets=offsets,
        multipliers=multipliers,
        used=used,
        entering=np.where(adds, -1, state.entering),
        pressure=np.where(adds, zero, state.pressure),
    )


def _combine(weights: Array, lines: Array) -> Array:
    """Sum weights[s] lines[s] over the slots s = 0, 1, ..., starting at zero."""
    total: Array = np.zeros(lines[:, 0].shape, np.float32)
    for slot in range(lines.shape[1]):
        total = total + weights[:, slot, None] * lines[:, slot]
    return total


def _smallest(values: Array) -> tuple[Array, _Index]:
    """Return the first smallest value of each row, and its index; NaN is never chosen."""
    best, index = np.full(len(values), _LARGEST), np.zeros(len(values), np.intp)
    for i in range(values.shape[1]):
        less = values[:, i] < best
        best, index = np.where(less, values[:, i], best), np.where(less, i, index)
    return best, index

"""Cost and Newton step of predictive control in NumPy: the roundings of sf_ngpc.c.

Formulas are in `planners/ngpc_cost.py`. Tangents are (batch, directions, n); second tangents are
(batch, pairs, n) with the pair of directions h and g <= h at h (h + 1) / 2 + g, which is also where
the Hessian (batch, pairs) has them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from safectl.export.arithmetic import clip, dot, total
from safectl.export.ops import Array
from safectl.planners.ngpc import DAMPING, LEAST_PIVOT

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)


class Jet(NamedTuple):
    """A value (batch, n), tangents (batch, nz, n) and second tangents (batch, pairs, n)."""

    value: Array
    first: Array
    second: Array


class Cost(NamedTuple):
    """Constants of the cost.

    Attributes:
        low: Lower limits, shape (m,).
        high: Upper limits, shape (m,).
        tracking: Square roots of 2 Q, shape (p,).
        effort: 2 L, shape (m,).
        gain: Share of the innovation that is integrated, shape (1,).
        sharpness: s of the barrier, shape (1,).
        barrier: Its ends, shape (m,) each; None for the box.
    """

    low: Array
    high: Array
    tracking: Array
    effort: Array
    gain: Array
    sharpness: Array
    barrier: tuple[Array, Array] | None


def newton_step(
    cost: Cost,
    predicted: Sequence[Jet],
    reference: Array,
    applied: Array,
    plan: Array,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Take one step, projected on the limits; also return where it was neither damped nor limited.

    Args:
        cost: Constants.
        predicted: Predictions of the samples of the cost, with tangents by the plan.
        reference: Targets of these samples, or one for all, shape (batch, rows, p).
        applied: Last applied input, shape (batch, m).
        plan: Shape (batch, nz).
    """
    gradient, hessian = _track(cost, predicted, reference)
    _move(cost, plan, applied, gradient, hessian)
    control = plan.shape[1] // len(cost.low)
    low, high = np.tile(cost.low, control), np.tile(cost.high, control)
    if cost.barrier is None:
        _hold(plan, low, high, gradient, hessian)
    else:
        ends = (np.tile(cost.barrier[0], control), np.tile(cost.barrier[1], control))
        _barrier(cost.sharpness, plan, ends, gradient, hessian)
    step, is_undamped = _solve(gradient, hessian)
    moved = plan + step
    limited = clip(moved, low, high)
    return limited, is_undamped & (limited == moved).all(axis=1)


def pairs(directions: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return h and g of every pair, in order."""
    h, g = np.tril_indices(directions)
    return h, g


def _track(cost: Cost, predicted: Sequence[Jet], reference: Array) -> tuple[Array, Array]:
    """Return gradient and Hessian of the tracking errors, one row of both per error."""
    errors, rows = [], []
    for index, jet in enumerate(predicted):
        target = reference[:, min(index, reference.shape[1] - 1)]
        errors.append(cost.tracking * (target - jet.value))
        rows.append(jet.first * cost.tracking)
    error, tangents = np.concatenate(errors, axis=1), np.concatenate(rows, axis=2)
    gradient = -dot(tangents, error[:, None])
    h, g = pairs(gradient.shape[1])
    hessian = dot(tangents[:, h], tangents[:, g])
    if predicted[0].second.shape[1]:
        pulls = np.tile(cost.tracking, len(predicted)) * error
        curvature = np.concatenate([jet.second for jet in predicted], axis=2)
        for r in range(pulls.shape[1]):
            hessian = hessian - pulls[:, r, None] * curvature[:, :, r]
    return gradient, hessian


def _move(cost: Cost, plan: Array, applied: Array, gradient: Array, hessian: Array) -> None:
    m = applied.shape[1]
    for h in range(plan.shape[1]):
        twice = cost.effort[h % m]
        pull = twice * (plan[:, h] - (plan[:, h - m] if h >= m else applied[:, h]))
        gradient[:, h] += pull
        hessian[:, _at(h, h)] += twice
        if h >= m:
            gradient[:, h - m] -= pull
            hessian[:, _at(h, h - m)] -= twice
            hessian[:, _at(h - m, h - m)] += twice


def _at(h: int, g: int) -> int:
    """Return where a lower triangle has entry (h, g) or (g, h)."""
    return max(h, g) * (max(h, g) + 1) // 2 + min(h, g)


def _diagonal(size: int) -> list[int]:
    return [_at(h, h) for h in range(size)]


def _barrier(
    s: Array, plan: Array, ends: tuple[Array, Array], gradient: Array, hessian: Array
) -> None:
    low, high = ends
    below, above = _ONE / (plan - low), _ONE / (high - plan)
    gradient += s * (above * above - below * below)
    bend = _TWO * s * (below * below * below + above * above * above)
    hessian[:, _diagonal(plan.shape[1])] += bend


def _hold(plan: Array, low: Array, high: Array, gradient: Array, hessian: Array) -> None:
    is_held = (plan <= low) & (gradient > _ZERO) | (plan >= high) & (gradient < _ZERO)
    gradient[is_held] = _ZERO
    h, g = pairs(plan.shape[1])
    hessian[is_held[:, h] | is_held[:, g]] = _ZERO
    diagonal = _diagonal(plan.shape[1])
    hessian[:, diagonal] = np.where(is_held, _ONE, hessian[:, diagonal])


def _solve(gradient: Array, hessian: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Solve (H + mu I) step = -gradient with the least damping that works, NaN where none does."""
    batch, nz = gradient.shape
    size = total(np.where(hessian < _ZERO, -hessian, hessian))
    step, is_solved = np.full_like(gradient, np.nan), np.zeros(batch, bool)
    is_undamped = is_solved
    for attempt, multiple in enumerate(DAMPING):
        factor, works = _factorise(hessian, np.float32(multiple) * size, nz)
        chosen = works & ~is_solved
        step = np.where(chosen[:, None], _substitute(factor, gradient), step)
        is_solved = is_solved | works
        is_undamped = is_solved if attempt == 0 else is_undamped
    return step, is_undamped


def _factorise(hessian: Array, shift: Array, nz: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return L of H + shift I = L D L', one over D on its diagonal, and where D is large enough."""
    factor, works = np.zeros_like(hessian), np.ones(len(hessian), bool)
    for i in range(nz):
        diagonal = hessian[:, _at(i, i)] + shift
        rest = diagonal
        for j in range(i):
            entry = hessian[:, _at(i, j)]
            for k in range(j):
                entry = entry - factor[:, _at(i, k)] * factor[:, _at(j, k)]
            factor[:, _at(i, j)] = entry
        for j in range(i):
            scaled = factor[:, _at(i, j)] * factor[:, _at(j, j)]
            rest = rest - factor[:, _at(i, j)] * scaled
            factor[:, _at(i, j)] = scaled
        works &= rest > np.float32(LEAST_PIVOT) * diagonal
        factor[:, _at(i, i)] = _ONE / rest
    return factor, works


def _substitute(factor: Array, gradient: Array) -> Array:
    nz = gradient.shape[1]
    step = np.zeros_like(gradient)
    for i in range(nz):
        entry = -gradient[:, i]
        for k in range(i):
            entry = entry - factor[:, _at(i, k)] * step[:, k]
        step[:, i] = entry
    for i in reversed(range(nz)):
        entry = step[:, i] * factor[:, _at(i, i)]
        for k in range(i + 1, nz):
            entry = entry - factor[:, _at(k, i)] * step[:, k]
        step[:, i] = entry
    return step

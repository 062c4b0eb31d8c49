"""The dual active-set method of Goldfarb and Idnani, one problem per column of a batch.

It solves min 1/2 |v - q|^2 subject to C v >= d, with unit rows in C. It starts at a minimiser over
few rows and adds the most violated row, step by step, keeping the multipliers of the active rows
non-negative; it ends at the solution or proves that there is none.

Source: D. Goldfarb, A. Idnani, "A numerically stable dual method for solving strictly convex
quadratic programs", Mathematical Programming 27 (1983), algorithm of section 3, with the Hessian
equal to the identity. Its letters: N holds the active rows, N* = (N N')^-1 N, z is the primal step
direction, r the dual one. N* changes by one outer product per step. Here N and N* have one line per
slot, nu slots, zero where unused: every array has a fixed size and every loop a fixed bound, so the
same steps in the same order are a static C function. The batch is the last axis.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.solve.projection import Candidate

DEPENDENT_ULPS = 64.0
"""A unit row closer to the span of the active rows than this many epsilons is dependent on them.

The second orthogonalisation leaves an error of a few epsilons.
"""

STEPS_PER_ROW = 3
SPARE_STEPS = 8


class ActiveSet(NamedTuple):
    """The state of the method: everything that C keeps between two steps.

    Attributes:
        point: v, shape (nu, batch).
        rows: N, active rows by slot, shape (nu, nu, batch).
        inverse: N*, shape (nu, nu, batch).
        offsets: d of the active rows, shape (nu, batch).
        multipliers: Multipliers of the active rows, shape (nu, batch).
        used: Which slots hold a row, shape (nu, batch).
        entering: Row that is being added, shape (batch,), -1 if none.
        pressure: Its multiplier so far, shape (batch,).
    """

    point: Tensor
    rows: Tensor
    inverse: Tensor
    offsets: Tensor
    multipliers: Tensor
    used: Tensor
    entering: Tensor
    pressure: Tensor


class Rows(NamedTuple):
    """Constraints C v >= d.

    Attributes:
        normals: C, shape (k, nu, batch), of unit length or zero.
        offsets: d, shape (k, batch), in the unit of v.
        band: Violation that counts as none, shape (k, batch), in the unit of v.
    """

    normals: Float[Tensor, "k nu batch"]
    offsets: Float[Tensor, "k batch"]
    band: Float[Tensor, "k batch"]


class _Direction(NamedTuple):
    primal: Tensor  # z, (nu, batch)
    dual: Tensor  # r by slot, (nu, batch)
    length: Tensor  # |z|^2 = z.c, (batch,), zero if the entering row is dependent


def step_bound(rows: int) -> int:
    """Return the number of steps after which a problem with so many rows is given up.

    No polynomial bound is known for an active-set method; a test counts what random and degenerate
    problems need.
    """
    return STEPS_PER_ROW * rows + SPARE_STEPS


def from_minimiser(point: Float[Tensor, "nu batch"]) -> ActiveSet:
    """Start at the unconstrained minimiser with no active row."""
    nu, batch = point.shape
    matrix, vector = point.new_zeros(nu, nu, batch), torch.zeros_like(point)
    used = torch.zeros_like(point, dtype=torch.bool)
    none = torch.full((batch,), -1, device=point.device)
    return ActiveSet(point, matrix, matrix, vector, vector, used, none, point.new_zeros(batch))


def from_box(
    point: Float[Tensor, "nu batch"], low: Float[Tensor, "nu 1"], high: Float[Tensor, "nu 1"]
) -> ActiveSet:
    """Start at the projection on the box, with the limits that bind as active rows.

    A lower limit is the row +e_i with offset low_i, an upper one -e_i with offset -high_i; the
    limit of action i takes slot i.
    """
    inside = point.clamp(low, high)
    shift = inside - point
    sign = shift.sign()
    rows = torch.diag_embed(sign.T).permute(1, 2, 0).contiguous()
    return from_minimiser(inside)._replace(
        rows=rows,
        inverse=rows,
        offsets=sign * inside,
        multipliers=shift.abs(),
        used=sign != 0.0,
    )


def solve_active_set(start: ActiveSet, rows: Rows) -> Candidate:
    """Solve from a starting active set.

    Finished problems leave the loop when they are half of what is left in it. The result of one
    problem does not depend on the others.

    Args:
        start: From `from_minimiser` or `from_box`.
        rows: The constraints.

    Returns:
        Points (nu, batch); not solved where the constraints contradict each other or the step bound
        was met.
    """
    state, point = start, start.point.clone()
    solved = torch.zeros_like(start.used[0])
    finished = torch.zeros_like(solved)
    index = torch.arange(point.shape[1], device=point.device)
    for _ in range(step_bound(rows.offsets.shape[0])):
        state, satisfied = _choose(state, rows)
        new = satisfied & ~finished
        point[:, index] = torch.where(new, state.point, point[:, index])
        solved[index] |= new
        state, blocked = _advance(state, _direction(state, rows), rows)
        finished = finished | satisfied | blocked
        count = int(finished.sum())
        if count == len(index):
            break
        if 2 * count > len(index):
            going = (~finished).nonzero().squeeze(-1)
            index, finished = index[going], finished[going]
            state = ActiveSet(*(part[..., going] for part in state))
            rows = Rows(*(part[..., going] for part in rows))
    return Candidate(point, solved)


def _choose(state: ActiveSet, rows: Rows) -> tuple[ActiveSet, Tensor]:
    """Tighten the active rows, then pick the most violated row; also say where none is left."""
    missing = state.offsets - (state.rows * state.point).sum(1)
    point = state.point + (state.inverse * missing.unsqueeze(1)).sum(0)
    worst, row = ((rows.normals * point).sum(1) - rows.offsets + rows.band).min(0)
    pending = state.entering >= 0
    entering = torch.where(pending, state.entering, row)
    return state._replace(point=point, entering=entering), ~pending & (worst >= 0.0)


def _direction(state: ActiveSet, rows: Rows) -> _Direction:
    """Split the entering row into z and N r; the second pass removes the rounding of the first."""
    normal = _pick(rows.normals, state.entering)
    dual = (state.inverse * normal).sum(1)
    primal = normal - (dual.unsqueeze(1) * state.rows).sum(0)
    rest = (state.inverse * primal).sum(1)
    primal = primal - (rest.unsqueeze(1) * state.rows).sum(0)
    length = (primal * primal).sum(0)
    shortest = DEPENDENT_ULPS * torch.finfo(normal.dtype).eps
    independent = (length > shortest * shortest) & ~state.used.all(0)
    zero = torch.zeros_like(length)
    return _Direction(
        torch.where(independent, primal, zero), dual + rest, torch.where(independent, length, zero)
    )


def _advance(state: ActiveSet, direction: _Direction, rows: Rows) -> tuple[ActiveSet, Tensor]:
    """Step until the entering row is met (add it) or a multiplier reaches zero (drop that row).

    Also say where neither can happen: there the constraints contradict each other.
    """
    primal, dual, length = direction
    normal = _pick(rows.normals, state.entering)
    offset = rows.offsets.gather(0, state.entering.unsqueeze(0)).squeeze(0)
    missing = (offset - (normal * state.point).sum(0)).clamp(min=0.0)
    full = torch.where(length > 0.0, missing / length, torch.inf)
    falling = state.used & (dual > DEPENDENT_ULPS * torch.finfo(dual.dtype).eps)
    partial, leaving = torch.where(falling, state.multipliers / dual, torch.inf).min(0)
    step, adds = torch.minimum(full, partial), full <= partial
    moved = state._replace(
        point=state.point + step * primal,
        multipliers=(state.multipliers - step * dual).clamp(min=0.0),
        pressure=state.pressure + step,
    )
    unused = state.used.to(step.dtype).min(0).indices  # argmin of integers is slow in torch
    slot = torch.where(adds, unused, leaving)
    return _exchange(moved, direction, (normal, offset), slot, adds), step == torch.inf


def _exchange(
    state: ActiveSet,
    direction: _Direction,
    entering: tuple[Tensor, Tensor],
    slot: Tensor,
    adds: Tensor,
) -> ActiveSet:
    """Put the entering row in a slot, or empty the slot; one outer product on N* either way."""
    normal, offset = entering
    gone = _pick(state.inverse, slot)
    share = (state.inverse * gone).sum(1) / (gone * gone).sum(0)
    line = torch.where(adds, direction.primal / direction.length, gone)
    weight = torch.where(adds, direction.dual, share)
    inverse = state.inverse - weight.unsqueeze(1) * line
    zero = torch.zeros_like(offset)
    return state._replace(
        rows=_put(state.rows, slot, torch.where(adds, normal, zero)),
        inverse=_put(inverse, slot, torch.where(adds, line, zero)),
        offsets=_put(state.offsets, slot, torch.where(adds, offset, zero)),
        multipliers=_put(state.multipliers, slot, torch.where(adds, state.pressure, zero)),
        used=_put(state.used, slot, adds),
        entering=torch.where(adds, -1, state.entering),
        pressure=torch.where(adds, zero, state.pressure),
    )


def _pick(lines: Tensor, index: Tensor) -> Tensor:
    """Line `index` of every problem's matrix: (k, nu, batch) and (batch,) give (nu, batch)."""
    place = index.expand(1, lines.shape[1], -1)
    return lines.gather(0, place).squeeze(0)


def _put(lines: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """Replace line `index` of every problem: (k, ..., batch) by (..., batch)."""
    place = index.expand(1, *lines.shape[1:])
    return lines.scatter(0, place, value.unsqueeze(0))

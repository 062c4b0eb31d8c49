"""What a program may still take of an action before visits are too likely, as constraint values."""

from typing import NamedTuple

import numpy as np

from safectl.export.ops import Op, Strides
from safectl.export.program import OBSERVATION
from safectl.export.trace import Tracer
from safectl.models.visit_scope import VisitScope

_WRONG = 1e6
"""What an impossible C_U is worth, and an observation outside the box: the same for all."""
_INSIDE = 1e4
"""What is taken off in the unsafe set: more than any C_U, less than what is impossible [steps]."""
_SHARP = 1e20
"""Gain before a limit, so that any float32 beside zero reaches it."""


class Possible(NamedTuple):
    """Ends of what C_U may be, slack included, and what is admissible [steps]."""

    low: float
    high: float
    threshold: float


def append_room(tracer: Tracer, heads: list[str], possible: Possible, scope: VisitScope) -> str:
    """Append, side by side for every action, values that are all zero or more if it is admissible.

    They are threshold - C_U of every head, less 1e4 in the unsafe set; and -1e6 where a head is
    impossible or the observation outside the box, so that there no action is better than another.

    Args:
        tracer: Of the program.
        heads: Each with one C_U per action.
        possible: Ends of C_U.
        scope: Box and unsafe set.
    """
    rows = tracer.size(heads[0])
    inside = tiled(tracer, _append_inside(tracer, scope), rows, "insides")
    room = [tiled(tracer, _append_known(tracer, scope), rows, "knowns")]
    for head in heads:
        below = tracer.affine(head, [-1.0], [possible.threshold], name=f"{head}_free")
        room.append(tracer.add(below, inside, name=f"{head}_below"))
        for side, sign, end in (("low", 1.0, possible.low), ("high", -1.0, possible.high)):
            gain, shift = [sign * _SHARP], [-sign * _SHARP * end]
            room.append(tracer.affine(head, gain, shift, name=f"{head}_{side}"))
    joined = tracer.concat(room, name="rooms", rows=rows)
    return _between(tracer, joined, (-_WRONG, _WRONG), "room")


def tiled(tracer: Tracer, value: str, rows: int, name: str) -> str:
    """Append a value repeated for every row."""
    strides = Strides(0, (rows, tracer.size(value)), (0, 1))
    return tracer.op(Op("gather", (value,), (name,), detail=strides))


def _append_known(tracer: Tracer, scope: VisitScope) -> str:
    """Append 1e6 within the box, and -1e6 or less outside."""
    low, high = (end.detach().double().numpy() for end in (scope.low, scope.high))
    gain = np.full(len(low), _SHARP)
    above = tracer.affine(OBSERVATION, gain, -_SHARP * low, name="box_low")
    below = tracer.affine(OBSERVATION, -gain, _SHARP * high, name="box_high")
    sides = tracer.concat([above, below], name="box_sides")
    lost = _between(tracer, sides, (-2.0 * _WRONG, 0.0), "box_lost")
    return tracer.dense(lost, np.ones((1, 2 * len(low))), [_WRONG], name="known")


def _append_inside(tracer: Tracer, scope: VisitScope) -> str:
    """Append -1e4 or less in the unsafe set and zero outside: from |p - c|^2 - r^2."""
    discs, nx = scope.unsafe, tracer.spec.nx
    centres = discs.centres.detach().double().numpy()
    count, width = centres.shape
    chosen = np.tile(np.eye(nx)[list(discs.positions)], (count, 1))
    offset = tracer.dense(OBSERVATION, chosen, -centres.ravel(), name="disc_offset")
    squares = tracer.multiply(offset, offset, name="disc_squares")
    sums = _SHARP * np.kron(np.eye(count), np.ones((1, width)))
    away = tracer.dense(squares, sums, np.full(count, -_SHARP * discs.radius**2), name="disc_away")
    lost = _between(tracer, away, (-_INSIDE, 0.0), "disc_lost")
    return tracer.dense(lost, np.ones((1, count)), [0.0], name="inside")


def _between(tracer: Tracer, value: str, ends: tuple[float, float], name: str) -> str:
    size = tracer.size(value)
    limits = [
        tracer.constant(f"{name}_{side}", np.full(size, end))
        for side, end in zip(("least", "most"), ends, strict=True)
    ]
    return tracer.op(Op("clip", (value,), (name,), tuple(limits)))

"""Entries of a stored value in another order, as operations of a program."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from safectl.errors import UnsupportedLayer
from safectl.export.importers.layers import Index, Shape
from safectl.export.trace import Tracer

MOST_PIECES = 256
"""Slices that one arrangement may be joined from."""
_MOST_AXES = 4


class Transposition(NamedTuple):
    """Axis i of the result is axis `order[i]` of a value of this shape."""

    shape: Shape
    order: Shape


def append_arranged(tracer: Tracer, value: str, index: Index, *, name: str) -> str:
    """Append what stores entry `index[i]` of a value at place i.

    Raises:
        UnsupportedLayer: If it is no slice, no transposition and no join of few slices.
    """
    flat = index.reshape(-1)
    first, size = int(flat.min()), flat.size
    is_range = bool((np.sort(flat) == np.arange(first, first + size)).all())
    if is_range and size < tracer.size(value):
        value = tracer.slice(value, first, first + size, name=f"{name}_part")
    if is_range and bool((flat == np.arange(first, first + size)).all()):
        return value
    found = transposition(flat - first) if is_range else None
    if found is not None:
        return tracer.permute(value, found.shape, found.order, name=f"{name}_turned")
    cuts = [0, *(np.flatnonzero(np.diff(flat) != 1) + 1), size]
    if len(cuts) > MOST_PIECES:
        raise UnsupportedLayer(
            f"the order of entries before {name}",
            supported=("slices", "transpositions", f"joins of {MOST_PIECES} slices"),
            advice="Rearrange the input outside the network.",
        )
    base = first if is_range else 0
    pieces = [
        tracer.slice(
            value, int(flat[start]) - base, int(flat[stop - 1]) - base + 1, name=f"{name}_{number}"
        )
        for number, (start, stop) in enumerate(pairwise(cuts))
    ]
    return pieces[0] if len(pieces) == 1 else tracer.concat(pieces, name=f"{name}_joined")


def transposition(order: Index) -> Transposition | None:
    """Return the transposition that a permutation is, if it is one of at most four axes.

    From the inside out, equal distances between neighbours make an axis.
    """
    axes: list[tuple[int, int]] = []  # (size, distance), innermost first
    rest = order
    while rest.size > 1:
        distance = int(rest[1] - rest[0])
        changes = np.flatnonzero(np.diff(rest) != distance)
        size = int(changes[0]) + 1 if changes.size else rest.size
        if distance < 1 or rest.size % size:
            return None
        axes.insert(0, (size, distance))
        rest = rest[::size]
    if not 1 <= len(axes) <= _MOST_AXES:
        return None
    stored = sorted(range(len(axes)), key=lambda axis: -axes[axis][1])
    shape = tuple(axes[axis][0] for axis in stored)
    places = tuple(stored.index(axis) for axis in range(len(axes)))
    if int(np.prod(shape)) != order.size:
        return None
    turned = np.arange(order.size).reshape(shape).transpose(places).reshape(-1)
    return Transposition(shape, places) if np.array_equal(turned, order) else None

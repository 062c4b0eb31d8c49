"""Entries of a stored value in another order, as operations of a program."""

from itertools import pairwise

import numpy as np

from safectl.errors import UnsupportedLayer
from safectl.export.importers.layers import Index
from safectl.export.torch_value import Traced, arranged, loops
from safectl.export.trace import Tracer

MOST_PIECES = 256
"""Slices that one arrangement may be joined from."""


def append_arranged(tracer: Tracer, value: str, index: Index, *, name: str) -> str:
    """Append what stores entry `index[i]` of a value at place i.

    Raises:
        UnsupportedLayer: If it is no combination of loops and no join of few slices.
    """
    flat = index.reshape(-1)
    if loops(flat) is not None:
        return arranged(tracer, Traced(value, flat), flat, name=name)
    cuts = [0, *(np.flatnonzero(np.diff(flat) != 1) + 1), flat.size]
    if len(cuts) > MOST_PIECES:
        raise UnsupportedLayer(
            f"the order of entries before {name}",
            supported=("orders of at most four nested loops", f"joins of {MOST_PIECES} slices"),
            advice="Rearrange the input outside the network.",
        )
    pieces = [
        tracer.slice(value, int(flat[start]), int(flat[stop - 1]) + 1, name=f"{name}_{number}")
        for number, (start, stop) in enumerate(pairwise(cuts))
    ]
    return tracer.concat(pieces, name=name)

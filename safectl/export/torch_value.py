"""A torch tensor as a flat value of a program and where in it each entry of the tensor lies.

Views of torch (reshape, permute, slice, expand, ...) change where entries lie and cost nothing; an
operation that needs its input in one piece and order asks `arranged`, which copies only if needed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from safectl.errors import UnsupportedLayer
from safectl.export.ops import Op, Strides
from safectl.export.trace import Tracer

Index = npt.NDArray[np.int64]
_MOST_AXES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A tensor with batch one.

    Attributes:
        value: Name of the value in the program.
        index: Entry of the value that holds each entry of the tensor, in the shape of the tensor.
    """

    value: str
    index: Index

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in torch, with the batch."""
        return self.index.shape

    def moved(self, view: Callable[[Index], Index]) -> "Traced":
        """Return a view."""
        return replace(self, index=view(self.index))


def traced(value: str, shape: tuple[int, ...]) -> Traced:
    """Return the tensor that a value holds in the order of torch."""
    return Traced(value, np.arange(int(np.prod(shape))).reshape(shape))


def is_whole(tensor: Traced, size: int) -> bool:
    """Return whether a tensor holds every entry of a value of this size once."""
    flat = tensor.index.ravel()
    return flat.size == size and bool(np.array_equal(np.sort(flat), np.arange(size)))


def arranged(tracer: Tracer, tensor: Traced, index: Index, *, name: str) -> str:
    """Return a value that holds the entries `index` of the tensor's value, in this order.

    Raises:
        UnsupportedLayer: If the order is no combination of at most four steps.
    """
    wanted, size = index.ravel(), tracer.size(tensor.value)
    if np.array_equal(wanted, np.arange(size)):
        return tensor.value
    start, stop = int(wanted[0]), int(wanted[0]) + wanted.size
    if np.array_equal(wanted, np.arange(start, stop)):
        return tracer.slice(tensor.value, start, stop, name=name)
    axes = loops(wanted)
    if axes is None:
        raise UnsupportedLayer(
            f"a rearrangement of {wanted.size} entries",
            supported=("orders of at most four nested loops",),
            advice="Simplify the reshape and permute calls between the layers.",
        )
    strides = Strides(start, tuple(size for size, _ in axes), tuple(step for _, step in axes))
    return tracer.op(Op("gather", (tensor.value,), (name,), detail=strides))


def loops(wanted: Index) -> list[tuple[int, int]] | None:
    """Write a sequence as nested loops, (size, step) from the outermost on, or None."""
    axes: list[tuple[int, int]] = []
    while wanted.size > 1:
        length = _run(wanted)
        if length < 2:
            return None
        axes.insert(0, (length, int(wanted[1] - wanted[0])))
        wanted = wanted[::length]
    return axes if 1 <= len(axes) <= _MOST_AXES else [(1, 0)] if not axes else None


def _run(wanted: Index) -> int:
    """Return the largest length of blocks that all step as the first two entries do."""
    step = wanted[1] - wanted[0]
    steps = np.diff(wanted) == step
    longest = int(np.argmin(steps)) + 1 if not steps.all() else wanted.size
    for length in range(longest, 1, -1):
        if wanted.size % length == 0:
            blocks = wanted.reshape(-1, length)
            if (np.diff(blocks, axis=1) == step).all():
                return length
    return 1

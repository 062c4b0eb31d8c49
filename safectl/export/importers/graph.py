"""A neural network as layers in order, with the shape of every value checked when it is added."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from safectl.errors import RangeError, ShapeError
from safectl.export.importers.layers import Index, Join, Layer, Shape, View
from safectl.export.importers.shapes import output_shape

LARGEST_VALUE, LARGEST_TOTAL = 1 << 20, 1 << 24
"""Entries of one value and of all: 4 MiB of float32 is above the RAM of every board, so a broken
file cannot ask for more."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One layer in its place.

    Attributes:
        layer: What it computes.
        name: Its name in the model file, for messages and for the names in the C code.
        inputs: The values that it reads.
        output: The value that it defines.
    """

    layer: Layer
    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A network between its inputs and its outputs.

    Attributes:
        inputs: Values that enter, in the order of the model file.
        nodes: Layers in an order in which they can run.
        outputs: Values that leave.
        shapes: Shape of every value.
    """

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    shapes: dict[str, Shape]


@dataclass(slots=True)
class Draft:
    """Collects the layers of a graph; every method returns the name of the value it defines."""

    _inputs: list[str] = field(default_factory=list)
    _nodes: list[Node] = field(default_factory=list)
    _shapes: dict[str, Shape] = field(default_factory=dict)
    _total: int = 0

    def shape(self, value: str) -> Shape:
        """Return the shape of a value."""
        return self._shapes[value]

    def enter(self, name: str, shape: Sequence[int]) -> str:
        """Add an input of the network."""
        value = self._define(f"input {name}", tuple(shape))
        self._inputs.append(value)
        return value

    def add(self, layer: Layer, name: str, *inputs: str) -> str:
        """Append a layer.

        Raises:
            ShapeError: If an input does not fit the layer.
            RangeError: If an option does not fit, or the output is larger than `LARGEST_VALUE`.
        """
        shape = output_shape(layer, name, [self._shapes[value] for value in inputs])
        output = self._define(name, shape)
        self._nodes.append(Node(layer, name, inputs, output))
        return output

    def view(self, value: str, name: str, arrange: Callable[[Index], Index]) -> str:
        """Append a view, given as what it does to an array of the value's shape."""
        shape = self._shapes[value]
        index = np.arange(math.prod(shape)).reshape(shape)
        return self.add(View(arrange(index)), name, value)

    def reshape(self, value: str, shape: Sequence[int], name: str) -> str:
        """Append a view of the same entries in the same order; one size may be -1."""
        known, size = math.prod(n for n in shape if n != -1), math.prod(self._shapes[value])
        unknown = list(shape).count(-1)
        if unknown > 1 or known < 1 or size % known or (not unknown and known != size):
            raise ShapeError(f"reshape {name}", expected=shape, got=self._shapes[value])
        return self.view(value, name, lambda index: index.reshape(shape))

    def join(self, values: Sequence[str], axis: int, name: str) -> str:
        """Append a concatenation along an axis, which may count from the end."""
        rank = len(self._shapes[values[0]])
        return self.add(Join(axis + rank if axis < 0 else axis), name, *values)

    def finish(self, outputs: Sequence[str]) -> Graph:
        """Return the graph."""
        return Graph(tuple(self._inputs), tuple(self._nodes), tuple(outputs), dict(self._shapes))

    def _define(self, name: str, shape: Shape) -> str:
        if not shape or min(shape) < 1 or math.prod(shape) > LARGEST_VALUE:
            raise RangeError(
                f"shape of {name}", value=shape, expected=f"1 to {LARGEST_VALUE} entries"
            )
        self._total += math.prod(shape)
        if self._total > LARGEST_TOTAL:
            raise RangeError(
                "entries of all values", value=self._total, expected=str(LARGEST_TOTAL)
            )
        value = f"{len(self._shapes)} {name}"
        self._shapes[value] = shape
        return value

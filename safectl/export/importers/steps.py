"""A graph without views: every layer names its inputs and how their entries are arranged."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safectl.export.importers.graph import Graph
from safectl.export.importers.layers import (
    Activation,
    Affine,
    Clip,
    Combine,
    Index,
    Layer,
    Rounded,
    Shape,
    View,
)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A value as a layer reads it.

    Attributes:
        value: What is stored.
        index: Which stored entry is read at each place; nothing for all in their order.
    """

    value: str
    index: Index | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One layer that is no view.

    Attributes:
        layer: What it computes.
        name: Its name in the model file.
        sources: What it reads.
        shapes: Shape of each source as the layer sees it.
        output: The value that it stores.
    """

    layer: Layer
    name: str
    sources: tuple[Source, ...]
    shapes: tuple[Shape, ...]
    output: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Steps in an order in which they can run, and what leaves at the end."""

    steps: tuple[Step, ...]
    outputs: tuple[Source, ...]


def without_views(graph: Graph) -> Plan:
    """Compose all views and hand them on to the layers that read them.

    A layer that treats every entry alike works on the stored order, and the view moves behind it.
    """
    sources = {value: Source(value) for value in graph.inputs}
    sizes = {value: math.prod(shape) for value, shape in graph.shapes.items()}
    steps = []
    for node in graph.nodes:
        inputs = tuple(sources[value] for value in node.inputs)
        if isinstance(node.layer, View):
            sources[node.output] = _composed(inputs[0], node.layer.index, sizes)
            continue
        shapes = tuple(graph.shapes[value] for value in node.inputs)
        result = Source(node.output)
        if _is_entrywise(node.layer) and _is_rearranged_alike(inputs, sizes):
            result = Source(node.output, inputs[0].index)
            inputs = tuple(Source(source.value) for source in inputs)
        sources[node.output] = result
        steps.append(Step(node.layer, node.name, inputs, shapes, node.output))
    return Plan(tuple(steps), tuple(sources[value] for value in graph.outputs))


def _composed(source: Source, index: Index, sizes: Mapping[str, int]) -> Source:
    stored = index if source.index is None else source.index.reshape(-1)[index]
    size = sizes[source.value]
    if stored.size == size and bool((stored.reshape(-1) == np.arange(size)).all()):
        return Source(source.value)
    return Source(source.value, stored)


def _is_entrywise(layer: Layer) -> bool:
    if isinstance(layer, Activation):
        return layer.kind != "softmax"
    if isinstance(layer, Affine):
        return layer.gain.shape == (1,)
    return isinstance(layer, Clip | Combine | Rounded)


def _is_rearranged_alike(sources: tuple[Source, ...], sizes: Mapping[str, int]) -> bool:
    """Return whether all read all entries of values of one size in the same order."""
    first = sources[0].index
    if first is None:
        return False
    for source in sources:
        if source.index is None or not np.array_equal(source.index.reshape(-1), first.reshape(-1)):
            return False
        if sizes[source.value] != first.size:
            return False
    return bool((np.sort(first, axis=None) == np.arange(first.size)).all())

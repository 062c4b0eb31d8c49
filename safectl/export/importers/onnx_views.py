"""ONNX operators that only arrange entries, for values and for constants alike."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from safectl.export.importers.layers import Shape
from safectl.export.importers.onnx_files import Constant, axes_of
from safectl.export.importers.onnx_layer import LARGEST_CONSTANT, OnnxLayer

Arrange = Callable[[OnnxLayer, Constant], tuple[Constant, ...]]


def _reshape(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    sizes = [int(size) for size in layer.constant(1).reshape(-1)]
    if not layer.attribute("allowzero", 0):
        sizes = [array.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return (array.reshape(sizes),)


def _flatten(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    axis = int(layer.attribute("axis", 1))
    axis = axis + array.ndim if axis < 0 else axis
    return (array.reshape(math.prod(array.shape[:axis]), -1),)


def _transpose(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    return (array.transpose(layer.attribute("perm", range(array.ndim)[::-1])),)


def _squeeze(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    ones = [axis for axis, size in enumerate(array.shape) if size == 1]
    axes = axes_of(array.shape, layer.axes(1, ones))
    return (array.squeeze(tuple(axes)),)


def _unsqueeze(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    axes = layer.axes(1)
    rank = array.ndim + len(axes)
    return (np.expand_dims(array, axes_of((1,) * rank, axes)),)


def _slice(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    if layer.has(1):
        starts, stops = (layer.constant(place).reshape(-1).tolist() for place in (1, 2))
        axes = layer.constant(3).reshape(-1).tolist() if layer.has(3) else range(len(starts))
        steps = layer.constant(4).reshape(-1).tolist() if layer.has(4) else [1] * len(starts)
    else:
        starts, stops = layer.attribute("starts", []), layer.attribute("ends", [])
        axes, steps = layer.attribute("axes", range(len(starts))), [1] * len(starts)
    cuts = [slice(None)] * array.ndim
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        is_open = step < 0 and stop < -array.shape[axis]
        cuts[axis] = slice(start, None if is_open else stop, step)
    return (array[tuple(cuts)],)


def _split(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    (axis,) = axes_of(array.shape, [layer.attribute("axis", 0)])
    count, size = len(layer.node.outputs), array.shape[axis]
    share = -(-size // count)
    sizes = layer.constant(1).tolist() if layer.has(1) else layer.attribute("split", None)
    sizes = [share] * (count - 1) + [size - share * (count - 1)] if sizes is None else sizes
    if len(sizes) != count or sum(sizes) != size:
        raise ValueError(f"node {layer.name} splits {size} entries into {sizes}")
    return tuple(np.split(array, np.cumsum(sizes)[:-1], axis))


def _gather(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    chosen = layer.constant(1).astype(np.intp)
    return (np.asarray(np.take(array, chosen, layer.attribute("axis", 0))),)


def _expand(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    sizes = tuple(int(size) for size in layer.constant(1).reshape(-1))
    return (np.broadcast_to(array, _within_limit(np.broadcast_shapes(array.shape, sizes))),)


def _tile(layer: OnnxLayer, array: Constant) -> tuple[Constant, ...]:
    repeats = [int(count) for count in layer.constant(1).reshape(-1)]
    _within_limit([size * count for size, count in zip(array.shape, repeats, strict=True)])
    return (np.tile(array, repeats),)


def _within_limit(shape: Sequence[int]) -> Shape:
    if math.prod(shape) > LARGEST_CONSTANT:
        raise ValueError(f"a value of shape {tuple(shape)} is too large")
    return tuple(shape)


VIEWS: Mapping[str, Arrange] = {
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""What each operator does to an array of its first input's shape."""


def append_view(layer: OnnxLayer) -> tuple[str, ...]:
    """Append one view per output."""
    arrange, value = VIEWS[layer.node.kind], layer.value()
    indices = np.arange(math.prod(layer.shape())).reshape(layer.shape())
    results = arrange(layer, indices)
    return tuple(
        layer.view(value, lambda _, found=found: found)  # type: ignore[misc]
        for found in results
    )


def append_concat(layer: OnnxLayer) -> tuple[str, ...]:
    """Append a concatenation of values; that of channels works on channel-last views."""
    values = [layer.value(position) for position in range(len(layer.node.inputs))]
    rank, axis = len(layer.shape()), int(layer.attribute("axis", 0))
    if axis not in (1, 1 - rank) or rank < 3:
        return (layer.draft.join(values, axis, layer.name),)
    moved = [layer.view(value, lambda index: np.moveaxis(index, 1, -1)) for value in values]
    joined = layer.draft.join(moved, -1, layer.name)
    return (layer.view(joined, lambda index: np.moveaxis(index, -1, 1)),)

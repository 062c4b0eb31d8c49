"""ONNX convolutions, pools and padding: channel-first, turned into channel-last views."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from safectl.export.importers.layers import Convolution, Padding, Pair, Pool
from safectl.export.importers.onnx_files import axes_of
from safectl.export.importers.onnx_layer import OnnxLayer
from safectl.export.importers.onnx_layers import Append
from safectl.export.importers.shapes import same_padding
from safectl.export.importers.windows import pad, reduce


def _conv(layer: OnnxLayer) -> tuple[str, ...]:
    weight = layer.constant(1)
    if weight.ndim == 3:
        weight = weight[:, :, None]
    bias = layer.constant(2) if layer.has(2) else np.zeros(len(weight))
    image, rank = _image(layer)
    window = (weight.shape[2], weight.shape[3])
    stride, dilation = _pair(layer, "strides", rank), _pair(layer, "dilations", rank)
    padding = _padding(layer, image, rank, window, stride, dilation)
    groups = int(layer.attribute("group", 1))
    convolution = Convolution(weight.transpose(0, 2, 3, 1), bias, stride, padding, dilation, groups)
    return (_from_image(layer, layer.add(convolution, image), rank),)


def _pool(kind: Literal["max", "average"]) -> Append:
    def append(layer: OnnxLayer) -> tuple[str, ...]:
        if any(layer.node.outputs[1:]):
            raise layer.refuse("indices", "Use only the first output.")
        image, rank = _image(layer)
        advice = "Use a pool without dilation."
        layer.require(storage_order=0, dilations=[1] * rank, advice=advice)
        window = _pair(layer, "kernel_shape", rank)
        stride = _pair(layer, "strides", rank)
        padding = _padding(layer, image, rank, window, stride, (1, 1))
        counts = bool(layer.attribute("count_include_pad", 0))
        if layer.attribute("ceil_mode", 0):
            if kind == "average" and counts:
                raise layer.refuse("ceil_mode with count_include_pad", "Use one of them.")
            padding = _grown(layer, image, window, stride, padding)
        pool = Pool(kind, window, stride, padding, counts)
        return (_from_image(layer, layer.add(pool, image), rank),)

    return append


def _grown(layer: OnnxLayer, image: str, window: Pair, stride: Pair, padding: Padding) -> Padding:
    """Pad behind so that a last window that starts inside, and ends outside, is whole."""
    ends = []
    for size, cells, step, (before, after) in zip(
        layer.draft.shape(image)[:2], window, stride, padding, strict=True
    ):
        count = math.ceil((size + before + after - cells) / step) + 1
        if (count - 1) * step >= size + before:
            count -= 1
        ends.append((before, max(after, (count - 1) * step + cells - size - before)))
    return ends[0], ends[1]


def _global_pool(kind: Literal["max", "average"]) -> Append:
    def append(layer: OnnxLayer) -> tuple[str, ...]:
        image, rank = _image(layer)
        height, width, _ = layer.draft.shape(image)
        pooled = layer.add(Pool(kind, (height, width), (1, 1)), image)
        return (_from_image(layer, pooled, rank),)

    return append


def _reduce(kind: Literal["max", "average"]) -> Append:
    def append(layer: OnnxLayer) -> tuple[str, ...]:
        shape = layer.shape()
        is_named = layer.has(1) and layer.constant(1).size > 0
        if layer.attribute("noop_with_empty_axes", 0) and not is_named:
            return (layer.value(),)
        axes = axes_of(shape, layer.axes(1, range(len(shape))) or range(len(shape)))
        pooled = reduce(layer.draft, layer.value(), axes, kind, layer.name)
        keeps = bool(layer.attribute("keepdims", 1))
        rest = [
            1 if axis in axes else n for axis, n in enumerate(shape) if keeps or axis not in axes
        ]
        return (layer.draft.reshape(pooled, rest or (1,), layer.name),)

    return append


def _pad(layer: OnnxLayer) -> tuple[str, ...]:
    layer.require(mode="constant", advice="Pad with zeros.")
    if layer.has(2) and layer.constant(2).item() != 0.0:
        raise layer.refuse("a value other than zero", "Pad with zeros.")
    pads = layer.constant(1).reshape(-1).tolist() if layer.has(1) else layer.attribute("pads", [])
    image, rank = _image(layer)
    if layer.has(3) or len(pads) != 2 * (rank + 2) or any((*pads[:2], *pads[rank + 2 :][:2])):
        raise layer.refuse(f"pads {pads}", "Pad the spatial axes only.")
    ends = _ends([*pads[2 : rank + 2], *pads[rank + 4 :]], rank)
    return (_from_image(layer, pad(layer.draft, image, ends, layer.name), rank),)


def _image(layer: OnnxLayer) -> tuple[str, int]:
    """Return the first input as (height, width, channels), and its number of spatial axes."""
    shape = layer.shape()
    if len(shape) not in (3, 4) or shape[0] != 1:
        raise layer.refuse(f"an input of shape {shape}", "Use a batch of one, and 1 or 2 axes.")
    if len(shape) == 3:
        return layer.view(layer.value(), lambda index: index.transpose(0, 2, 1)), 1
    return layer.view(layer.value(), lambda index: index[0].transpose(1, 2, 0)), 2


def _from_image(layer: OnnxLayer, image: str, rank: int) -> str:
    if rank == 1:
        return layer.view(image, lambda index: index.transpose(0, 2, 1))
    return layer.view(image, lambda index: index.transpose(2, 0, 1)[None])


def _padding(
    layer: OnnxLayer, image: str, rank: int, window: Pair, stride: Pair, dilation: Pair
) -> Padding:
    mode = layer.attribute("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        found = same_padding(layer.draft.shape(image), window, stride, dilation)
        if mode == "SAME_UPPER":
            return found
        return (found[0][1], found[0][0]), (found[1][1], found[1][0])
    if mode not in ("NOTSET", "VALID"):
        raise layer.refuse(f"auto_pad {mode}", "Use explicit pads.")
    return _ends(layer.attribute("pads", [0] * (2 * rank)), rank)


def _ends(pads: Sequence[int], rank: int) -> Padding:
    if rank == 1:
        before, after = pads
        return (0, 0), (int(before), int(after))
    top, left, bottom, right = pads
    return (int(top), int(bottom)), (int(left), int(right))


def _pair(layer: OnnxLayer, name: str, rank: int) -> Pair:
    sizes = layer.attribute(name, [1] * rank)
    if len(sizes) != rank:
        raise layer.refuse(f"{name}={sizes}", f"Give {rank} numbers.")
    return (1, int(sizes[0])) if rank == 1 else (int(sizes[0]), int(sizes[1]))


WINDOWED: Mapping[str, Append] = {
    "AveragePool": _pool("average"),
    "Conv": _conv,
    "GlobalAveragePool": _global_pool("average"),
    "GlobalMaxPool": _global_pool("max"),
    "MaxPool": _pool("max"),
    "Pad": _pad,
    "ReduceMax": _reduce("max"),
    "ReduceMean": _reduce("average"),
}
"""What each operator with windows appends to the graph."""

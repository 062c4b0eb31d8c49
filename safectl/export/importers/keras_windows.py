"""Keras convolutions and pools; one-dimensional ones are images of height one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from safectl.export.importers.keras_layer import KerasLayer
from safectl.export.importers.layers import (
    UNPADDED,
    Array,
    Convolution,
    Padding,
    Pair,
    Pool,
    Shape,
)
from safectl.export.importers.shapes import same_padding
from safectl.export.importers.windows import pad

_Append = Callable[[KerasLayer, Sequence[str]], str]


def _convolution(layer: KerasLayer, inputs: Sequence[str]) -> str:
    image, rank = _image(layer, inputs[0])
    channels, groups = layer.draft.shape(image)[2], int(layer.config.get("groups", 1))
    filters, size = int(layer.config["filters"]), _sizes(layer, "kernel_size", rank)
    kernel, bias = _kernel_and_bias(layer, {"kernel": (*size, channels // groups, filters)})
    weight = kernel[0].reshape(*_pair(size), channels // groups, filters).transpose(3, 0, 1, 2)
    return _slide(layer, image, rank, weight, bias, groups)


def _depthwise(layer: KerasLayer, inputs: Sequence[str]) -> str:
    image, rank = _image(layer, inputs[0])
    name = "depthwise_kernel" if layer.file.version < 3 else "kernel"
    shape = _depthwise_shape(layer, image, rank)
    kernel, bias = _kernel_and_bias(layer, {name: shape})
    weight = _depthwise_weight(kernel[0], shape)
    return _slide(layer, image, rank, weight, bias, shape[-2])


def _separable(layer: KerasLayer, inputs: Sequence[str]) -> str:
    image, rank = _image(layer, inputs[0])
    depth, filters = _depthwise_shape(layer, image, rank), int(layer.config["filters"])
    middle = depth[-2] * depth[-1]
    point = (*(1 for _ in range(rank)), middle, filters)
    kernels, bias = _kernel_and_bias(layer, {"depthwise_kernel": depth, "pointwise_kernel": point})
    weight = _depthwise_weight(kernels[0], depth)
    padding, stride, dilation = _geometry(layer, image, rank, weight)
    first = Convolution(weight, np.zeros(middle), stride, padding, dilation, depth[-2])
    between = layer.draft.add(first, layer.name, image)
    second = kernels[1].reshape(1, 1, middle, filters).transpose(3, 0, 1, 2)
    return _leave(layer, layer.draft.add(Convolution(second, bias), layer.name, between), rank)


def _kernel_and_bias(layer: KerasLayer, kernels: Mapping[str, Shape]) -> tuple[list[Array], Array]:
    filters = list(kernels.values())[-1]
    count = filters[-1] if "filters" in layer.config else filters[-1] * filters[-2]
    if not layer.config.get("use_bias", True):
        return layer.weights(**kernels), np.zeros(count)
    *found, bias = layer.weights(**kernels, bias=(count,))
    return found, bias


def _depthwise_shape(layer: KerasLayer, image: str, rank: int) -> Shape:
    channels = layer.draft.shape(image)[2]
    multiplier = int(layer.config.get("depth_multiplier", 1))
    return (*_sizes(layer, "kernel_size", rank), channels, multiplier)


def _depthwise_weight(kernel: Array, shape: Shape) -> Array:
    """Order the filters by channel, then by multiple."""
    height, width = _pair(shape[:-2])
    return kernel.reshape(height, width, 1, -1).transpose(3, 0, 1, 2)


def _slide(
    layer: KerasLayer, image: str, rank: int, weight: Array, bias: Array, groups: int
) -> str:
    padding, stride, dilation = _geometry(layer, image, rank, weight)
    convolution = Convolution(weight, bias, stride, padding, dilation, groups)
    return _leave(layer, layer.draft.add(convolution, layer.name, image), rank)


def _geometry(
    layer: KerasLayer, image: str, rank: int, weight: Array
) -> tuple[Padding, Pair, Pair]:
    stride, dilation = (
        _pair(_sizes(layer, option, rank, default=1)) for option in ("strides", "dilation_rate")
    )
    window = (weight.shape[1], weight.shape[2])
    return _padding(layer, image, window, stride, dilation), stride, dilation


def _padding(
    layer: KerasLayer, image: str, window: Pair, stride: Pair, dilation: Pair = (1, 1)
) -> Padding:
    match layer.config.get("padding", "valid"):
        case "valid":
            return UNPADDED
        case "same":
            return same_padding(layer.draft.shape(image), window, stride, dilation)
        case "causal":
            return (0, 0), ((window[1] - 1) * dilation[1], 0)
        case other:
            raise layer.refuse(f"padding {other!r}", "Use valid, same or causal.")


def _pool(kind: Literal["max", "average"]) -> _Append:
    def append(layer: KerasLayer, inputs: Sequence[str]) -> str:
        image, rank = _image(layer, inputs[0])
        window = _pair(_sizes(layer, "pool_size", rank))
        has_stride = layer.config.get("strides") is not None
        stride = _pair(_sizes(layer, "strides", rank)) if has_stride else window
        pool = Pool(kind, window, stride, _padding(layer, image, window, stride))
        pooled = layer.draft.add(pool, layer.name, image)
        return _from_image(layer, pooled, rank)

    return append


def _global_pool(kind: Literal["max", "average"]) -> _Append:
    def append(layer: KerasLayer, inputs: Sequence[str]) -> str:
        image, rank = _image(layer, inputs[0])
        height, width, channels = layer.draft.shape(image)
        pool = Pool(kind, (height, width), (1, 1))
        value = layer.draft.add(pool, layer.name, image)
        kept = (1,) * rank if layer.config.get("keepdims", False) else ()
        return layer.draft.reshape(value, (*kept, channels), layer.name)

    return append


def _zero_padding(layer: KerasLayer, inputs: Sequence[str]) -> str:
    image, rank = _image(layer, inputs[0])
    given = layer.config["padding"]
    ends: Padding = ((0, 0), (int(given[0]), int(given[1]))) if rank == 1 else _ends(given)
    return _from_image(layer, pad(layer.draft, image, ends, layer.name), rank)


def _ends(given: Sequence[Sequence[int]]) -> Padding:
    (top, bottom), (left, right) = given
    return (int(top), int(bottom)), (int(left), int(right))


def _image(layer: KerasLayer, value: str) -> tuple[str, int]:
    """Return the value as (height, width, channels), and its number of slid axes."""
    rank = 1 if layer.kind.endswith("1D") else 2
    layer.require(data_format="channels_last", advice="Save the model with channels last.")
    shape = layer.draft.shape(value)
    if len(shape) != rank + 1:
        raise layer.refuse(f"an input of shape {shape}", f"It reads {rank + 1} axes.")
    image = value if rank == 2 else layer.draft.reshape(value, (1, *shape), layer.name)
    return image, rank


def _from_image(layer: KerasLayer, image: str, rank: int) -> str:
    shape = layer.draft.shape(image)
    return layer.draft.reshape(image, shape[2 - rank :], layer.name)


def _leave(layer: KerasLayer, image: str, rank: int) -> str:
    return layer.activate(_from_image(layer, image, rank))


def _sizes(layer: KerasLayer, option: str, rank: int, *, default: int | None = None) -> Shape:
    value = layer.config[option] if default is None else layer.config.get(option, default)
    sizes = [value] * rank if isinstance(value, int) else value
    return tuple(int(size) for size, _ in zip(sizes, range(rank), strict=True))


def _pair(sizes: Sequence[int]) -> Pair:
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


WINDOWED: Mapping[str, _Append] = {
    "AveragePooling1D": _pool("average"),
    "AveragePooling2D": _pool("average"),
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "DepthwiseConv1D": _depthwise,
    "DepthwiseConv2D": _depthwise,
    "GlobalAveragePooling1D": _global_pool("average"),
    "GlobalAveragePooling2D": _global_pool("average"),
    "GlobalMaxPooling1D": _global_pool("max"),
    "GlobalMaxPooling2D": _global_pool("max"),
    "MaxPooling1D": _pool("max"),
    "MaxPooling2D": _pool("max"),
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "ZeroPadding1D": _zero_padding,
    "ZeroPadding2D": _zero_padding,
}
"""What each class with windows appends to the graph."""

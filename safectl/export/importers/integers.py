"""Layers of a quantised model as integer operations, with the very integers of its file.

Sums of 8-bit convolutions are rounded twice and those of dense layers once, as by the reference
kernels of TensorFlow Lite: their results are equal bit for bit.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from safectl.errors import RangeError
from safectl.export.importers.layers import (
    IDENTITY,
    Activation,
    Convolution,
    Dense,
    Layer,
    Pool,
    Shape,
)
from safectl.export.integer_layer import IntegerWeights, Numbers, requantisation, twice_rounded
from safectl.export.kinds.activation import FUNCTIONS, activate
from safectl.export.ops import AnyArray, Integers, Op, Quantisation, Window
from safectl.export.trace import Tracer

_LARGEST_WEIGHT, _LARGEST_SUM, _LARGEST_MEAN = 127, 2**31 - 1, 2**20


class Whole(NamedTuple):
    """A value of integers in a program, and what they stand for."""

    value: str
    form: Quantisation


def append_integer(
    tracer: Tracer, layer: Layer, source: Whole, shape: Shape, result: Quantisation, *, name: str
) -> Whole | None:
    """Append the integer twin of a layer, or nothing if it has none.

    Args:
        tracer: The program so far.
        layer: The layer in real numbers.
        source: Its input.
        shape: Shape of the input.
        result: What its output is rounded to.
        name: Name of the output.
    """
    if isinstance(layer, Dense | Convolution):
        return _weighted(tracer, layer, source, shape, result, name)
    if isinstance(layer, Pool) and result == source.form and not layer.count_padding:
        window = Window(_image(shape), layer.window, layer.stride, layer.padding)
        form = source.form
        detail = Integers(form.dtype, form.zero, form.dtype, window=window)
        kind = f"integer_{layer.kind}_pool2d"
        return Whole(tracer.op(Op(kind, (source.value,), (name,), detail=detail)), form)
    if isinstance(layer, Pool) and layer.kind == "average" and layer.window == shape[:2]:
        return _mean(tracer, source, _image(shape), result, name)
    if isinstance(layer, Activation) and layer.kind in FUNCTIONS:
        return _lookup(tracer, layer, source, result, name)
    return None


def _lookup(
    tracer: Tracer, layer: Activation, source: Whole, result: Quantisation, name: str
) -> Whole | None:
    """Tabulate a function over the 256 values of its input."""
    if (source.form.dtype, result.dtype) != ("int8", "int8"):
        return None
    steps = np.arange(-128, 128) - source.form.zero
    inputs = (steps * source.form.scale).astype(np.float32)
    op = Op("activation", ("x",), ("y",), activation=layer.kind, alpha=layer.alpha or 0.0)
    exact = activate(op, inputs[None])[0]
    table = np.clip(np.rint(exact / result.scale) + result.zero, *result.range).astype(np.int8)
    constant = tracer.constant(f"{name}_table", table)
    return Whole(tracer.op(Op("lookup", (source.value,), (name,), (constant,))), result)


def _mean(
    tracer: Tracer, source: Whole, shape: tuple[int, int, int], result: Quantisation, name: str
) -> Whole | None:
    """Append the mean of an image as a depthwise convolution with ones; MEAN of TensorFlow Lite."""
    count, channels = shape[0] * shape[1], shape[2]
    if (source.form.dtype, result.dtype) != ("int8", "int8") or count > _LARGEST_MEAN:
        return None
    fraction, exponent = math.frexp(source.form.scale / result.scale)
    up = count.bit_length() - 1
    if exponent > up:
        return None
    arrays: Mapping[str, AnyArray] = {
        "weight": np.ones((channels, *shape[:2], 1), np.int8),
        "bias": np.full(channels, -source.form.zero * count, np.int32),
        "multiplier": np.full(channels, (round(fraction * 2**31) << up) // count, np.int32),
        "shift": np.full(channels, up - exponent, np.int8),
    }
    constants = tuple(tracer.constant(f"{name}_{key}", array) for key, array in arrays.items())
    window = Window(shape, shape[:2], groups=channels)
    zero, (low, high) = source.form.zero, result.range
    detail = Integers("int8", zero, "int8", 0, result.zero, low, high, window, rounds_twice=True)
    op = Op("integer_depthwise_conv2d", (source.value,), (name,), constants, detail=detail)
    return Whole(tracer.op(op), result)


def _weighted(
    tracer: Tracer,
    layer: Dense | Convolution,
    source: Whole,
    shape: Shape,
    result: Quantisation,
    name: str,
) -> Whole | None:
    limits = _limits(layer.activation, result)
    weights = _integers(layer, source.form)
    if weights is None or limits is None:
        return None
    twice = twice_rounded(weights, result) if _rounds_twice(layer, result) else None
    try:
        scaling = twice or requantisation(weights, result)
    except RangeError:
        return None  # a scale that 32 bits cannot hold stays in float
    arrays: Mapping[str, AnyArray] = {
        "weight": weights.weight,
        "bias": weights.bias,
        "multiplier": scaling.multiplier,
        "shift": scaling.shift,
    }
    constants = tuple(tracer.constant(f"{name}_{key}", array) for key, array in arrays.items())
    form, (low, high) = source.form, limits
    detail = Integers(
        form.dtype,
        form.zero,
        result.dtype,
        scaling.left,
        result.zero,
        low,
        high,
        rounds_twice=twice is not None,
    )
    if isinstance(layer, Dense):
        rows = int(np.prod(shape[:-1]))
        op = Op("integer_dense", (source.value,), (name,), constants, rows=rows, detail=detail)
        return Whole(tracer.op(op), result)
    size = (layer.weight.shape[1], layer.weight.shape[2])
    window = Window(_image(shape), size, layer.stride, layer.padding, layer.dilation, layer.groups)
    kind = "depthwise_conv2d" if layer.groups == shape[2] > 1 else "conv2d"
    detail = replace(detail, window=window)
    op = Op(f"integer_{kind}", (source.value,), (name,), constants, detail=detail)
    return Whole(tracer.op(op), result)


def _integers(layer: Dense | Convolution, form: Quantisation) -> IntegerWeights | None:
    """Return the integers that the weights are multiples of a step by, if sums fit 32 bits."""
    if layer.step is None:
        return None
    flat = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    whole = np.rint(flat / layer.step[:, None])
    scale: Numbers = np.asarray(layer.step, np.float64) * form.scale
    start = np.rint(layer.bias / scale) - form.zero * whole.sum(axis=1)
    reach = max(-form.range[0], form.range[1]) + abs(form.zero)
    bound = int((np.abs(start) + reach * np.abs(whole).sum(axis=1)).max())
    if np.abs(whole).max() > _LARGEST_WEIGHT or bound > _LARGEST_SUM:
        return None
    weight = whole.astype(np.int8).reshape(layer.weight.shape)
    return IntegerWeights(weight, start.astype(np.int32), scale, bound)


def _rounds_twice(layer: Dense | Convolution, result: Quantisation) -> bool:
    return isinstance(layer, Convolution) and result.dtype == "int8"


def _limits(activation: Activation, result: Quantisation) -> tuple[int, int] | None:
    low, high = result.range
    if activation == IDENTITY:
        return low, high
    if activation.kind not in ("relu", "relu6"):
        return None
    if activation.kind == "relu6":
        high = min(high, result.zero + round(6.0 / result.scale))
    return result.zero, high


def _image(shape: Shape) -> tuple[int, int, int]:
    height, width, channels = shape
    return height, width, channels

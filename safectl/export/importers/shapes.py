"""Shape rules of the neural layers: checked once for all formats."""

import math
from collections.abc import Sequence

import numpy as np

from safectl.errors import RangeError, ShapeError
from safectl.export.importers.layers import (
    Activation,
    Affine,
    Array,
    Clip,
    Combine,
    Convolution,
    Dense,
    Join,
    Layer,
    LayerNorm,
    Padding,
    Pair,
    Pool,
    Recurrent,
    Rounded,
    Shape,
    View,
)

_GATES = {"simple_rnn": 1, "gru": 3, "lstm": 4}
LARGEST_WINDOW = 1 << 12
"""Cells of one window and zeros of one padding: more is a broken file."""


def output_shape(layer: Layer, name: str, shapes: Sequence[Shape]) -> Shape:
    """Check a layer against the shapes of its inputs and return the shape of its output.

    Raises:
        ShapeError: If an input or a weight does not fit.
        RangeError: If an option or the number of inputs does not.
    """
    if len(shapes) < 1 or (len(shapes) > 1 and not isinstance(layer, Combine | Join)):
        raise RangeError(f"inputs of {name}", value=len(shapes), expected="as many as it reads")
    shape = shapes[0]
    match layer:
        case Dense():
            _weight(name, layer.weight, (len(layer.weight), shape[-1]))
            _weight(name, layer.bias, (len(layer.weight),))
            return (*shape[:-1], len(layer.weight))
        case Convolution():
            return _convolution(layer, name, shape)
        case Pool():
            _rank(name, shape, 3)
            return (*_windows(name, layer, shape, layer.window), shape[2])
        case Affine() | LayerNorm():
            is_scalar = isinstance(layer, Affine) and layer.gain.shape == (1,)
            _weight(name, layer.gain, (1,) if is_scalar else shape[-1:])
            _weight(name, layer.shift, layer.gain.shape)
            return shape
        case Recurrent():
            return _recurrent(layer, name, shape)
        case Combine():
            for other in shapes[1:]:
                if other != shape:
                    raise ShapeError(f"input of {name}", expected=shape, got=other)
            return shape
        case Join():
            return _join(layer, name, shapes)
        case View():
            index = layer.index
            if index.size and not 0 <= index.min() <= index.max() < math.prod(shape):
                raise RangeError(f"entries of {name}", value=shape, expected="those of the input")
            return index.shape
        case Activation() | Clip() | Rounded():
            return shape


def _join(layer: Join, name: str, shapes: Sequence[Shape]) -> Shape:
    first, axis = list(shapes[0]), layer.axis
    if not 0 <= axis < len(first):
        raise RangeError(f"axis of {name}", value=axis, expected=f"within the rank {len(first)}")
    for shape in shapes[1:]:
        wanted = [*first[:axis], shape[axis] if axis < len(shape) else 0, *first[axis + 1 :]]
        if list(shape) != wanted:
            raise ShapeError(f"input of {name}", expected=wanted, got=shape)
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _rank(name: str, shape: Shape, rank: int) -> None:
    if len(shape) != rank:
        raise ShapeError(f"input of {name}", expected=("?",) * rank, got=shape)


def _weight(name: str, weight: Array, expected: Sequence[int]) -> None:
    if weight.shape != tuple(expected):
        raise ShapeError(f"a weight of {name}", expected=expected, got=weight.shape)


def _convolution(layer: Convolution, name: str, shape: Shape) -> Shape:
    _rank(name, shape, 3)
    if layer.weight.ndim != 4:
        raise ShapeError(f"weight of {name}", expected=("?",) * 4, got=layer.weight.shape)
    out, height, width, _ = layer.weight.shape
    if layer.groups < 1 or shape[2] % layer.groups or out % layer.groups:
        raise RangeError(
            f"groups of {name}", value=layer.groups, expected=f"a divisor of {shape[2]} and {out}"
        )
    _weight(name, layer.weight, (out, height, width, shape[2] // layer.groups))
    _weight(name, layer.bias, (out,))
    if min(layer.dilation) < 1:
        raise RangeError(f"dilation of {name}", value=layer.dilation, expected="at least 1")
    window = (
        (height - 1) * layer.dilation[0] + 1,
        (width - 1) * layer.dilation[1] + 1,
    )
    return (*_windows(name, layer, shape, window), out)


def _windows(name: str, layer: Convolution | Pool, shape: Shape, window: Pair) -> Pair:
    ends = np.array(layer.padding)
    if min(window) < 1 or max(window) > LARGEST_WINDOW or min(layer.stride) < 1:
        raise RangeError(
            f"window of {name}", value=(window, layer.stride), expected=f"1 to {LARGEST_WINDOW}"
        )
    if ends.min() < 0 or ends.max() > LARGEST_WINDOW:
        raise RangeError(
            f"padding of {name}", value=layer.padding, expected=f"0 to {LARGEST_WINDOW}"
        )
    rows, columns = (
        (size + sum(pad) - cells) // step + 1
        for size, pad, cells, step in zip(
            shape[:2], layer.padding, window, layer.stride, strict=True
        )
    )
    return rows, columns


def same_padding(shape: Shape, window: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Padding:
    """Return the zeros of the padding `same`: ceil(size / stride) outputs, the odd zero behind.

    Args:
        shape: Height and width, and what follows.
        window: Cells of the kernel, along both.
        stride: Steps of the kernel.
        dilation: Distance of its cells.
    """
    top, left = (
        max((math.ceil(n / step) - 1) * step + (cells - 1) * gap + 1 - n, 0)
        for n, cells, step, gap in zip(shape[:2], window, stride, dilation, strict=True)
    )
    return (top // 2, top - top // 2), (left // 2, left - left // 2)


def _recurrent(layer: Recurrent, name: str, shape: Shape) -> Shape:
    _rank(name, shape, 2)
    width = _GATES[layer.cell] * layer.units
    _weight(name, layer.kernel, (shape[1], width))
    _weight(name, layer.recurrent, (layer.units, width))
    _weight(name, layer.bias, (2, width) if layer.reset_after else (width,))
    if layer.reset_after and layer.cell != "gru":
        raise RangeError(f"reset_after of {name}", value=True, expected="a GRU")
    return (shape[0], layer.units) if layer.return_sequences else (layer.units,)

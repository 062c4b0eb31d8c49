"""Convolution and pooling as methods of `Tracer`."""

import numpy as np
import numpy.typing as npt

from safectl.errors import ShapeError
from safectl.export.ops import Op, Pair, Window
from safectl.export.recorder import Recorder, slope, weights

_Floats = npt.ArrayLike
_Image = tuple[int, int, int]
_NO_PADDING = ((0, 0), (0, 0))


def conv2d(
    tracer: Recorder,
    value: str,
    weight: _Floats,
    bias: _Floats | None,
    *,
    shape: _Image,
    name: str,
    stride: Pair = (1, 1),
    padding: tuple[Pair, Pair] = _NO_PADDING,
    dilation: Pair = (1, 1),
    groups: int = 1,
    activation: str = "none",
    alpha: float | None = None,
) -> str:
    """Append a convolution of an image (height, width, channels) with zeros around it.

    The weight has shape (out, height, width, channels / groups). With as many groups as
    channels it is a depthwise convolution.
    """
    sizes = np.asarray(weight).shape
    if len(sizes) != 4:
        wanted = ("out", "height", "width", "in")
        raise ShapeError(f"weight of {name}", expected=wanted, got=sizes)
    window = Window(shape, (sizes[1], sizes[2]), stride, padding, dilation, groups)
    kind = "depthwise_conv2d" if groups == shape[2] > 1 else "conv2d"
    constants = weights(tracer, name, weight, bias)
    chosen = slope(activation, alpha)
    return tracer.op(
        Op(kind, (value,), (name,), constants, activation, alpha=chosen, detail=window)
    )


def conv1d(
    tracer: Recorder,
    value: str,
    weight: _Floats,
    bias: _Floats | None,
    *,
    shape: Pair,
    name: str,
    stride: int = 1,
    padding: Pair = (0, 0),
    dilation: int = 1,
    groups: int = 1,
    activation: str = "none",
    alpha: float | None = None,
) -> str:
    """Append a convolution of a sequence (steps, features); weight (out, size, in / groups)."""
    return conv2d(
        tracer,
        value,
        np.asarray(weight)[:, None],
        bias,
        shape=(1, *shape),
        name=name,
        stride=(1, stride),
        padding=((0, 0), padding),
        dilation=(1, dilation),
        groups=groups,
        activation=activation,
        alpha=alpha,
    )


def depthwise_conv2d(
    tracer: Recorder,
    value: str,
    weight: _Floats,
    bias: _Floats | None,
    *,
    shape: _Image,
    name: str,
    stride: Pair = (1, 1),
    padding: tuple[Pair, Pair] = _NO_PADDING,
    dilation: Pair = (1, 1),
    activation: str = "none",
    alpha: float | None = None,
) -> str:
    """Append a convolution of every channel by itself.

    The weight has shape (channels * multiplier, height, width, 1); output c * multiplier + i
    sees channel c.
    """
    return conv2d(
        tracer,
        value,
        weight,
        bias,
        shape=shape,
        name=name,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=shape[2],
        activation=activation,
        alpha=alpha,
    )


def max_pool2d(
    tracer: Recorder,
    value: str,
    *,
    shape: _Image,
    pool: Pair,
    name: str,
    stride: Pair | None = None,
    padding: tuple[Pair, Pair] = _NO_PADDING,
    dilation: Pair = (1, 1),
) -> str:
    """Append the largest entry of every window; the stride is the window when absent."""
    window = Window(shape, pool, stride or pool, padding, dilation)
    return tracer.op(Op("max_pool2d", (value,), (name,), detail=window))


def average_pool2d(
    tracer: Recorder,
    value: str,
    *,
    shape: _Image,
    pool: Pair,
    name: str,
    stride: Pair | None = None,
    padding: tuple[Pair, Pair] = _NO_PADDING,
    count_padding: bool = False,
) -> str:
    """Append the mean of every window, over the entries inside the image or over all."""
    window = Window(shape, pool, stride or pool, padding, count_padding=count_padding)
    return tracer.op(Op("average_pool2d", (value,), (name,), detail=window))

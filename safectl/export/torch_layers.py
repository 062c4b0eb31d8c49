"""Torch operations with weights or windows: linear, convolution, normalisation, pooling."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.fx import Node

from safectl.export.ops import Pair
from safectl.export.torch_graph import (
    Importer,
    Numbers,
    fused_activation,
    numbers,
    only_user,
    operation,
    sizes,
    unsupported,
)
from safectl.export.torch_value import Traced, is_whole, traced


class _Normalisation(NamedTuple):
    """What a batch normalisation does per channel: gain x + shift."""

    gain: Numbers
    shift: Numbers


def linear(
    importer: Importer, node: Node, x: Traced, weight: Tensor, bias: Tensor | None = None
) -> Traced:
    """Append weight x + bias over the last axis; a transposed input turns the weight instead."""
    matrix, start = numbers(weight), _bias(bias, len(weight))
    rows = int(np.prod(x.shape[:-1]))
    if rows == 1:
        fold = _following(importer, node, len(x.shape) == 2)
        matrix, start = matrix * fold.gain[:, None], start * fold.gain + fold.shift
    activation = fused_activation(importer, importer_last(importer, node))
    name, value = importer.fresh(), x.value
    if rows == 1 and is_whole(x, importer.tracer.size(x.value)):
        turned = np.empty_like(matrix)
        turned[:, x.index.ravel()] = matrix
        matrix = turned
    else:
        value = importer.arranged(x)
    value = importer.tracer.dense(value, matrix, start, rows=rows, name=name, activation=activation)
    return traced(value, (*x.shape[:-1], len(matrix)))


def convolution(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    """Append a convolution over one or two axes, with what follows folded in."""
    defaults: list[Any] = [None, None, None, 1, 0, 1, 1]
    x, weight, bias, stride, padding, dilation, groups = [*arguments, *defaults[len(arguments) :]]
    axes = weight.ndim - 2
    kernel = numbers(weight)[:, :, None] if axes == 1 else numbers(weight)
    shape = _image(node, x, axes)
    steps, spread = _pair(stride, axes, 1), _pair(dilation, axes, 1)
    edges = _padding(padding, axes, (kernel.shape[2], kernel.shape[3]), spread)
    fold = _following(importer, node, True)
    kernel = kernel * fold.gain[:, None, None, None]
    start = _bias(bias, len(kernel)) * fold.gain + fold.shift
    value = importer.tracer.conv2d(
        _channels_last(importer, x),
        kernel.transpose(0, 2, 3, 1),
        start,
        shape=shape,
        stride=steps,
        padding=edges,
        dilation=spread,
        groups=groups,
        name=importer.fresh(),
        activation=fused_activation(importer, importer_last(importer, node)),
    )
    return _image_result(node, value, len(kernel), axes)


def pool(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    """Append the largest entry or the mean of every window."""
    kind, axes = operation(node)[:3], int(operation(node)[-2])
    is_max = kind == "max"
    defaults: list[Any] = [None, None, [], 0, 1 if is_max else False, not is_max]
    x, size, stride, padding, fifth, sixth = [*arguments[:6], *defaults[len(arguments) :]]
    ceil_mode, dilation = (sixth, fifth) if is_max else (fifth, 1)
    if ceil_mode or (len(arguments) > 6 and arguments[6] is not None):
        raise unsupported(node, "Use ceil_mode=False and no divisor_override.")
    window, edges = _pair(size, axes, 1), _pair(padding, axes, 0)
    options: dict[str, Any] = {
        "shape": _image(node, x, axes),
        "pool": window,
        "stride": _pair(stride, axes, 1) if stride else window,
        "padding": ((edges[0], edges[0]), (edges[1], edges[1])),
        "name": importer.fresh(),
    }
    value = _channels_last(importer, x)
    if is_max:
        options["dilation"] = _pair(dilation, axes, 1)
        value = importer.tracer.max_pool2d(value, **options)
    else:
        value = importer.tracer.average_pool2d(value, count_padding=bool(sixth), **options)
    return _image_result(node, value, x.shape[1], axes)


def adaptive_pool(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    """Append the mean of windows that tile the image."""
    x, wanted, axes = arguments[0], arguments[1], int(operation(node)[-2])
    shape = _image(node, x, axes)
    counts = _pair(wanted, axes, 1)
    if shape[0] % counts[0] or shape[1] % counts[1]:
        raise unsupported(node, "Its output size must divide the input size.")
    value = importer.tracer.average_pool2d(
        _channels_last(importer, x),
        shape=shape,
        pool=(shape[0] // counts[0], shape[1] // counts[1]),
        name=importer.fresh(),
    )
    return _image_result(node, value, x.shape[1], axes)


def mean(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    """Append the mean over some axes: a pool of one column over the rows."""
    x = arguments[0]
    chosen = arguments[1] if len(arguments) > 1 and arguments[1] is not None else []
    keep = bool(arguments[2]) if len(arguments) > 2 else False
    axes = sorted(axis % len(x.shape) for axis in chosen) or list(range(len(x.shape)))
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    turned = x.index.transpose(axes + rest)
    rows = int(np.prod([x.shape[axis] for axis in axes]))
    value = importer.tracer.average_pool2d(
        importer.arranged(x, turned),
        shape=(rows, 1, turned.size // rows),
        pool=(rows, 1),
        name=importer.fresh(),
    )
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    return traced(value, tuple(kept if keep else [x.shape[axis] for axis in rest]))


def layer_norm(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    """Append a layer normalisation over the last axes."""
    del node
    x, shape = arguments[0], tuple(arguments[1])
    count = int(np.prod(shape))
    given = [*arguments[2:4], None, None][:2]
    gain = np.ones(count) if given[0] is None else numbers(given[0]).ravel()
    shift = np.zeros(count) if given[1] is None else numbers(given[1]).ravel()
    epsilon = float(arguments[4]) if len(arguments) > 4 else 1e-5
    value = importer.arranged(x)
    name = importer.fresh()
    value = importer.tracer.layer_norm(value, gain, shift, epsilon, name=name)
    return traced(value, x.shape)


def batch_norm(arguments: Sequence[Any]) -> _Normalisation:
    """Return what a batch normalisation does with its stored statistics."""
    _, weight, bias, mean, variance, _, _, epsilon, _ = arguments
    root = 1.0 / np.sqrt(numbers(variance) + epsilon)
    gain = root if weight is None else root * numbers(weight)
    return _Normalisation(gain, _bias(bias, len(gain)) - numbers(mean) * gain)


def importer_last(importer: Importer, node: Node) -> Node:
    """Return the node at the end of what a layer has taken in so far."""
    user = only_user(node)
    return user if user is not None and user in importer.done else node


def _following(importer: Importer, node: Node, is_per_channel: bool) -> _Normalisation:
    """Take in the batch normalisation that alone follows a layer; else change nothing."""
    user = only_user(node)
    if user is None or operation(user) != "batch_norm" or not is_per_channel:
        return _Normalisation(np.ones(1), np.zeros(1))
    importer.done.add(user)
    given = [importer.results[a] if isinstance(a, Node) else a for a in user.args[1:]]
    return batch_norm([None, *given])


def _bias(bias: Tensor | None, count: int) -> Numbers:
    return np.zeros(count) if bias is None else numbers(bias)


def _pair(given: Any, axes: int, alone: int) -> Pair:  # noqa: ANN401 - one number or several
    values = sizes(given, axes)
    return (alone, values[0]) if axes == 1 else (values[0], values[1])


def _padding(given: Any, axes: int, kernel: Pair, spread: Pair) -> tuple[Pair, Pair]:  # noqa: ANN401
    if given == "same":  # torch puts the odd one after the image
        totals = [dilation * (size - 1) for size, dilation in zip(kernel, spread, strict=True)]
        low = [total // 2 for total in totals]
        return (low[0], totals[0] - low[0]), (low[1], totals[1] - low[1])
    values = _pair(0 if given == "valid" else given, axes, 0)
    return (values[0], values[0]), (values[1], values[1])


def _image(node: Node, x: Traced, axes: int) -> tuple[int, int, int]:
    if len(x.shape) != 2 + axes or x.shape[0] != 1:
        raise unsupported(node, "Give it one image: (1, channels, height, width).")
    spatial = (1, *x.shape[2:]) if axes == 1 else x.shape[2:]
    return spatial[0], spatial[1], x.shape[1]


def _channels_last(importer: Importer, x: Traced) -> str:
    return importer.arranged(x, np.moveaxis(x.index, 1, -1))


def _image_result(node: Node, value: str, channels: int, axes: int) -> Traced:
    """Return a channel-last value as the channel-first tensor of torch."""
    shape = tuple(node.meta["val"].shape)
    flat = traced(value, (1, *shape[2:], channels))
    assert len(shape) == 2 + axes
    return flat.moved(lambda index: np.moveaxis(index, -1, 1))

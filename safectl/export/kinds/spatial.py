"""Convolution and pooling over channel-last images; a sequence is an image of height one."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from safectl.errors import RangeError
from safectl.export.arithmetic import multiply_add
from safectl.export.kinds.activation import activate, activation_lines
from safectl.export.kinds.dense import block_weights
from safectl.export.kinds.kind import Call, Kind, call, detail_of, expect, expect_size
from safectl.export.ops import AnyArray, Array, Op, Shape, Value, Window

_Values = Sequence[Value]
_Shapes = Sequence[Shape]
_Arrays = Sequence[AnyArray]


def pad(x: AnyArray, window: Window) -> AnyArray:
    """Return a batch of images with zeros around them, shape (batch, height, width, channels)."""
    image = x.reshape(len(x), *window.shape)
    return np.pad(image, ((0, 0), *window.padding, (0, 0)))


def taps(image: AnyArray, window: Window) -> Iterator[AnyArray]:
    """Yield what each tap of the kernel sees, row by row: (batch, height, width, channels)."""
    height, width = window.output
    for row in range(window.size[0]):
        for column in range(window.size[1]):
            top, left = row * window.dilation[0], column * window.dilation[1]
            yield image[
                :,
                top : top + (height - 1) * window.stride[0] + 1 : window.stride[0],
                left : left + (width - 1) * window.stride[1] + 1 : window.stride[1],
            ]


def inside(window: Window) -> Iterator[AnyArray]:
    """Yield, tap by tap, where it lies inside the image: (1, height, width, 1)."""
    ones = np.ones((1, window.shape[0] * window.shape[1]), bool)
    flat = Window((*window.shape[:2], 1), window.size, window.stride, window.padding)
    flat = Window(flat.shape, flat.size, flat.stride, flat.padding, window.dilation)
    return taps(pad(ones, flat), flat)


def _conv_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    window = detail_of(op, Window)
    expect_size(op, 0, values[0], int(np.prod(window.shape)))
    outputs = shapes[0][0] if shapes and shapes[0] else 0
    if not outputs or outputs % window.groups:
        raise RangeError(
            f"outputs of {op.kind}",
            value=op.constants,
            expected=f"a weight of (out, height, width, in / groups), out / {window.groups} whole",
        )
    expect(op, shapes, [(outputs, *window.size, window.shape[2] // window.groups), (outputs,)])
    return (Value(window.pixels * outputs),)


def _depthwise_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    window = detail_of(op, Window)
    if window.groups != window.shape[2]:
        raise RangeError("groups", value=window.groups, expected=f"{window.shape[2]} channels")
    return _conv_rule(op, values, shapes)


def patches(x: AnyArray, window: Window) -> AnyArray:
    """Return what every window of every group reads: (batch, pixels, groups, taps)."""
    views = np.stack(list(taps(pad(x, window), window)), axis=3)
    batch, (height, width) = len(x), window.output
    grouped = views.reshape(batch, height * width, views.shape[3], window.groups, -1)
    return grouped.transpose(0, 1, 3, 2, 4).reshape(batch, height * width, window.groups, -1)


def _conv(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[Array]:
    """Sum over rows, columns and channels of the kernel in this order; outside is zero."""
    window, (weight, bias) = detail_of(op, Window), constants
    views = patches(inputs[0], window)
    weights = weight.reshape(window.groups, -1, window.taps)
    biases = bias.reshape(window.groups, -1)
    parts = [
        multiply_add(views[:, :, group], weights[group], biases[group])
        for group in range(window.groups)
    ]
    return (activate(op, np.concatenate(parts, axis=2).reshape(len(inputs[0]), -1)),)


def _depthwise(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[Array]:
    """Sum over rows and columns of the kernel in this order; taps outside are left out."""
    window, (weight, bias) = detail_of(op, Window), constants
    repeats = len(bias) // window.groups
    by_tap = weight.reshape(len(bias), -1)
    batch, (height, width) = len(inputs[0]), window.output
    result: Array = np.broadcast_to(bias, (batch, height, width, len(bias)))
    seen = zip(taps(pad(inputs[0], window), window), inside(window), strict=True)
    for index, (view, is_inside) in enumerate(seen):
        product = np.repeat(view, repeats, axis=3) * by_tap[:, index]
        result = np.where(is_inside, result + product, result)
    return (activate(op, result.reshape(batch, -1)),)


def _pool_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    window = detail_of(op, Window)
    expect(op, shapes, [])
    expect_size(op, 0, values[0], int(np.prod(window.shape)))
    if window.dilation != (1, 1) and op.kind == "average_pool2d":
        raise RangeError("dilation of average_pool2d", value=window.dilation, expected="(1, 1)")
    is_seen = np.any(np.stack(list(inside(window))), axis=0)
    if not is_seen.all():
        raise RangeError("padding", value=window, expected="no window wholly outside the image")
    return (Value(window.pixels * window.shape[2], values[0].dtype),)


def _max_pool(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray]:
    """NaN stays NaN, as in `clip`."""
    del constants
    window = detail_of(op, Window)
    best, known = None, None
    for view, is_inside in zip(taps(pad(inputs[0], window), window), inside(window), strict=True):
        if best is None or known is None:
            best, known = view, is_inside
            continue
        is_better = is_inside & (~known | (view > best) | (view != view))
        best, known = np.where(is_better, view, best), known | is_inside
    assert best is not None  # a kernel has at least one tap
    return (best.reshape(len(inputs[0]), -1),)


def _average_pool(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray]:
    del constants
    window = detail_of(op, Window)
    result = np.zeros((len(inputs[0]), *window.output, window.shape[2]), inputs[0].dtype)
    count = np.zeros((1, *window.output, 1), np.float32)
    for view, is_inside in zip(taps(pad(inputs[0], window), window), inside(window), strict=True):
        result = np.where(is_inside, result + view, result)
        count = count + is_inside.astype(np.float32)
    if window.count_padding:
        count = np.full_like(count, window.size[0] * window.size[1])
    return ((result / count).reshape(len(inputs[0]), -1),)


def _conv_stored(op: Op, constants: _Arrays) -> Sequence[AnyArray | None]:
    groups = np.split(constants[0].reshape(len(constants[0]), -1), detail_of(op, Window).groups)
    return [np.concatenate([block_weights(group) for group in groups]), constants[1]]


def _depthwise_stored(op: Op, constants: _Arrays) -> Sequence[AnyArray | None]:
    del op
    return [constants[0].reshape(len(constants[0]), -1).T.ravel(), constants[1]]


def _conv_scratch(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    del sizes
    del shapes
    return (Value(detail_of(op, Window).taps),)


def window_line(op: Op, window: Window, outputs: int) -> str:
    """Write the attributes of a window as a constant of the step function."""
    numbers = (
        *(*window.shape, *window.size, *window.stride),
        *(window.padding[0][0], window.padding[1][0], *window.dilation, *window.output),
        *(outputs, window.groups),
    )
    body = ", ".join(str(number) for number in numbers)
    return f"static const sf_window window_{op.outputs[0]} = {{{body}}};"


def _conv_lines(c: Call) -> list[str]:
    outputs = len(c.constants[1])
    arguments = [c.outputs[0], c.inputs[0], *c.tables, *c.scratch, f"&window_{c.op.outputs[0]}"]
    return [
        window_line(c.op, detail_of(c.op, Window), outputs),
        call(f"sf_{c.op.kind}", *arguments),
        *activation_lines(c.op, c.outputs[0], c.outputs[0], c.results[0]),
    ]


def _pool_lines(c: Call) -> list[str]:
    window = detail_of(c.op, Window)
    arguments: list[object] = [c.outputs[0], c.inputs[0], f"&window_{c.op.outputs[0]}"]
    if c.op.kind == "average_pool2d":
        arguments.append(int(window.count_padding))
    return [window_line(c.op, window, window.shape[2]), call(f"sf_{c.op.kind}", *arguments)]


def _conv_products(op: Op, shapes: Sequence[Shape]) -> int:
    return detail_of(op, Window).pixels * int(np.prod(shapes[0]))


_CONV_FILES = ("sf_nn", "sf_activation", "sf_spatial")

KINDS: Mapping[str, Kind] = {
    # constants weight (out, height, width, in / groups), bias (out)
    "conv2d": Kind(
        (1,),
        _conv_rule,
        _conv,
        _conv_lines,
        _CONV_FILES,
        stored=_conv_stored,
        scratch=_conv_scratch,
        multiply_adds=_conv_products,
    ),
    "depthwise_conv2d": Kind(
        (1,),
        _depthwise_rule,
        _depthwise,
        _conv_lines,
        _CONV_FILES,
        stored=_depthwise_stored,
        multiply_adds=_conv_products,
    ),
    "max_pool2d": Kind((1,), _pool_rule, _max_pool, _pool_lines, ("sf_nn", "sf_spatial")),
    "average_pool2d": Kind((1,), _pool_rule, _average_pool, _pool_lines, ("sf_nn", "sf_spatial")),
}

"""Integer layers: 8- or 16-bit values, 8-bit weights with a scale per channel, 32-bit sums.

A sum a becomes the output y = clamp(round(a 2^left m / 2^(33 + s)) + zero), with m and s >= 0 per
channel: multiplier and shift of TensorFlow Lite with one rounding, to nearest and halves upwards
(`CMSIS_NN_USE_SINGLE_ROUNDING`). With `rounds_twice` it is clamp(away(round(a m / 2^31) / 2^s) +
zero), the outer one with halves away from zero, as in its convolutions. The zero of the input is
part of the bias. Weights and biases are such that no sum leaves 32 bits; see
`export/integer_layer.py`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError
from safectl.export.arithmetic import ROUND, ROUND_BITS
from safectl.export.kinds.activation import activate, activation_lines
from safectl.export.kinds.kind import (
    Call,
    Kind,
    call,
    columns,
    detail_of,
    expect,
    expect_size,
    indent,
)
from safectl.export.kinds.spatial import inside, pad, patches, taps, window_line
from safectl.export.literals import float_literal
from safectl.export.ops import AnyArray, Integers, Op, Quantisation, Shape, Value, Window

_Values = Sequence[Value]
_Shapes = Sequence[Shape]
_Arrays = Sequence[AnyArray]
_Sums = npt.NDArray[np.int64]
_BLOCK = 4
"""Weights that one step of a kernel reads, and rows that it computes side by side."""
SUFFIX = {"int8": "s8", "int16": "s16"}


def _quantise_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    return (Value(values[0].size, detail_of(op, Quantisation).dtype),)


def _quantise(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    """Round x / scale + zero to nearest, ties to even; adding 1.5 * 2^23 leaves the integer."""
    del constants
    form = detail_of(op, Quantisation)
    low, high = form.range
    shifted = inputs[0] * inverse(form) + (ROUND + np.float32(form.zero))
    bits = np.ascontiguousarray(shifted).view(np.int32)
    limited = np.clip(bits, ROUND_BITS + low, ROUND_BITS + high)
    return ((limited - ROUND_BITS).astype(form.dtype),)


def inverse(form: Quantisation) -> np.float32:
    """Return what a float is multiplied by before it is rounded."""
    return np.float32(1.0 / form.scale)


def _quantise_lines(c: Call) -> list[str]:
    form = detail_of(c.op, Quantisation)
    name = f"sf_quantise_{SUFFIX[form.dtype]}"
    factor = float_literal(inverse(form))
    return [call(name, c.outputs[0], c.inputs[0], factor, form.zero, c.sizes[0])]


def _dequantise_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    _expect_format(op, values[0], detail_of(op, Quantisation).dtype)
    return (Value(values[0].size),)


def _dequantise(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del constants
    form = detail_of(op, Quantisation)
    centred = inputs[0].astype(np.int32) - form.zero
    return (centred.astype(np.float32) * np.float32(form.scale),)


def _dequantise_lines(c: Call) -> list[str]:
    form = detail_of(c.op, Quantisation)
    name = f"sf_dequantise_{SUFFIX[form.dtype]}"
    scale = float_literal(np.float32(form.scale))
    return [call(name, c.outputs[0], c.inputs[0], scale, form.zero, c.sizes[0])]


def _lookup_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [(256,)])
    _expect_format(op, values[0], "int8")
    return (values[0],)


def _lookup(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    result: AnyArray = constants[0][inputs[0].astype(np.int32) + 128]
    return (result,)


def _lookup_lines(c: Call) -> list[str]:
    return [call("sf_lookup_s8", c.outputs[0], c.inputs[0], c.tables[0], c.sizes[0])]


def _layer_shapes(op: Op, form: Integers, weight: Shape) -> list[Shape]:
    outputs = (weight[0],)
    scaling = [outputs] if form.result == "float32" else [outputs, outputs]
    return [weight, outputs, *scaling]


def _dense_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    form = detail_of(op, Integers)
    _expect_format(op, values[0], form.source)
    outputs = shapes[0][0] if shapes and shapes[0] else 0
    weight = (max(1, outputs), columns(op, values[0]))
    expect(op, shapes, _layer_shapes(op, form, weight))
    return (Value(op.rows * weight[0], form.result),)


def _dense(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    rows = inputs[0].reshape(len(inputs[0]), op.rows, -1).astype(np.int64)
    sums = rows @ constants[0].T.astype(np.int64) + constants[1]
    return (_results(op, sums, constants[2:]),)


def _results(op: Op, sums: _Sums, scaling: _Arrays) -> AnyArray:
    """Turn sums (batch, rows, channels) into outputs (batch, size)."""
    form = detail_of(op, Integers)
    if form.result == "float32":
        scaled = sums.astype(np.float32) * scaling[0]
        return activate(op, scaled.reshape(len(sums), -1))
    multiplier, shift = scaling[0].astype(np.int64), scaling[1].astype(np.int64)
    if form.rounds_twice:
        high = (sums * multiplier + 2**30) >> 31
        rest, half = high & (2**shift - 1), (2**shift - 1) >> 1
        rounded = (high >> shift) + (rest > half + (high < 0))
    else:
        high = (sums * 2**form.left * multiplier) >> 32
        rounded = ((high >> shift) + 1) >> 1
    limited: AnyArray = np.clip(rounded + form.zero, form.low, form.high).astype(form.result)
    return limited.reshape(len(sums), -1)


def interleave(weight: AnyArray, source: str) -> AnyArray:
    """Order an (out, in) matrix as `sf_accumulate` reads it, padded with zeros to fours of inputs.

    Blocks of 4, 2 and 1 rows; within a block four weights of each row in turn. For 16-bit inputs
    the two in the middle change places, because SXTB16 takes every other byte.
    """
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % _BLOCK)))
    fours = padded.reshape(len(weight), -1, _BLOCK)
    fours = fours if source == "int8" else fours[:, :, [0, 2, 1, 3]]
    parts, row = [], 0
    for width in (_BLOCK, 2, 1):
        while row + width <= len(weight):
            parts.append(fours[row : row + width].transpose(1, 0, 2).ravel())
            row += width
    return np.concatenate(parts)


def _dense_stored(op: Op, constants: _Arrays) -> Sequence[AnyArray | None]:
    return [interleave(constants[0], detail_of(op, Integers).source), *constants[1:]]


def _padded(inputs: int) -> int:
    return -(-inputs // _BLOCK) * _BLOCK


def _sums_scratch(op: Op, sizes: Sequence[int], shapes: _Shapes) -> tuple[Value, ...]:
    del sizes
    del op
    return (Value(shapes[0][0], "int32"),)


def _dense_lines(c: Call) -> list[str]:
    form, outputs = detail_of(c.op, Integers), len(c.constants[1])
    inputs = c.sizes[0] // c.op.rows
    is_single = c.op.rows == 1
    source = c.inputs[0] if is_single else f"{c.inputs[0]} + r * {inputs}u"
    target = c.outputs[0] if is_single else f"{c.outputs[0]} + r * {outputs}u"
    counts = f"{_padded(inputs)}, {outputs}"
    name = f"sf_accumulate_{SUFFIX[form.source]}"
    body = [call(name, c.scratch[0], source, *c.tables[:2], counts), _finish(c, target, outputs)]
    if not is_single:
        body = [f"for (size_t r = 0; r < {c.op.rows}u; r++) {{", *indent(body), "}"]
    return [*_range_line(c), *body, *_float_activation(c)]


def _finish(c: Call, target: str, outputs: int) -> str:
    """Write the statement that turns the sums of one row into outputs."""
    form = detail_of(c.op, Integers)
    if form.result == "float32":
        return call("sf_rescale", target, c.scratch[0], c.tables[2], outputs)
    suffix = SUFFIX[form.result]
    if _saturates(form):
        arguments = (target, c.scratch[0], *c.tables[2:], form.zero, outputs)
        return call(f"sf_requantise_{suffix}", *arguments)
    limited = (target, c.scratch[0], *c.tables[2:], f"&range_{c.op.outputs[0]}", outputs)
    return call(f"sf_requantise_{'twice' if form.rounds_twice else 'in'}_{suffix}", *limited)


def _saturates(form: Integers) -> bool:
    """Return whether outputs may take every value of their format and sums need no gain."""
    limits = np.iinfo(form.result)
    return (
        form.left == 0
        and not form.rounds_twice
        and (form.low, form.high) == (limits.min, limits.max)
    )


def _range_line(c: Call) -> list[str]:
    form = detail_of(c.op, Integers)
    if form.result == "float32" or _saturates(form):
        return []
    numbers = f"{2**form.left}, {form.zero}, {form.low}, {form.high}"
    return [f"static const sf_range range_{c.op.outputs[0]} = {{{numbers}}};"]


def _float_activation(c: Call) -> list[str]:
    if detail_of(c.op, Integers).result != "float32":
        return []
    return activation_lines(c.op, c.outputs[0], c.outputs[0], c.results[0])


def window_of(op: Op) -> Window:
    """Return the window of an integer layer.

    Raises:
        RangeError: If it has none.
    """
    window = detail_of(op, Integers).window
    if window is None:
        raise RangeError(f"window of {op.kind}", value=None, expected="a Window")
    return window


def _conv_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    form, window = detail_of(op, Integers), window_of(op)
    _expect_format(op, values[0], form.source)
    expect_size(op, 0, values[0], int(np.prod(window.shape)))
    outputs = shapes[0][0] if shapes and shapes[0] else 0
    if not outputs or outputs % window.groups:
        raise RangeError("outputs", value=outputs, expected=f"a multiple of {window.groups}")
    weight = (outputs, *window.size, window.shape[2] // window.groups)
    expect(op, shapes, _layer_shapes(op, form, weight))
    return (Value(window.pixels * outputs, form.result),)


def _conv(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    """Sum in any order: integers do not round. Outside the image lies the zero of the input."""
    window, form = window_of(op), detail_of(op, Integers)
    centred = inputs[0].astype(np.int64) - form.padding
    views = patches(centred, window) + form.padding
    weights = constants[0].astype(np.int64).reshape(window.groups, -1, window.taps)
    sums = np.einsum("bpgt,got->bpgo", views, weights)
    sums = sums.reshape(*views.shape[:2], -1) + constants[1]
    return (_results(op, sums, constants[2:]),)


def _conv_stored(op: Op, constants: _Arrays) -> Sequence[AnyArray | None]:
    groups = np.split(constants[0].reshape(len(constants[0]), -1), window_of(op).groups)
    source = detail_of(op, Integers).source
    return [np.concatenate([interleave(group, source) for group in groups]), *constants[1:]]


def _conv_scratch(op: Op, sizes: Sequence[int], shapes: _Shapes) -> tuple[Value, ...]:
    del sizes
    patch = Value(_padded(window_of(op).taps), detail_of(op, Integers).source)
    return (Value(shapes[0][0], "int32"), patch)


def _conv_lines(c: Call) -> list[str]:
    """Loop over the pixels here, so that the sums of each go to the output of its format."""
    form, window, outputs = detail_of(c.op, Integers), window_of(c.op), len(c.constants[1])
    name = f"{'sf_depthwise' if 'depthwise' in c.op.kind else 'sf_conv'}_{SUFFIX[form.source]}"
    arguments = (c.scratch[0], c.inputs[0], *c.tables[:2])
    shared = (f"&window_{c.op.outputs[0]}", form.padding, "p")
    body = [
        call(name, *arguments, *shared, *c.scratch[1:]),
        _finish(c, f"{c.outputs[0]} + p * {outputs}u", outputs),
    ]
    loop = f"for (size_t p = 0; p < {window.pixels}u; p++) {{"
    lines = [window_line(c.op, window, outputs), *_range_line(c), loop, *indent(body), "}"]
    return [*lines, *_float_activation(c)]


def _depthwise_stored(op: Op, constants: _Arrays) -> Sequence[AnyArray | None]:
    del op
    return [constants[0].reshape(len(constants[0]), -1).T.ravel(), *constants[1:]]


def _pool_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    window = window_of(op)
    _expect_format(op, values[0], detail_of(op, Integers).source)
    expect_size(op, 0, values[0], int(np.prod(window.shape)))
    return (Value(window.pixels * window.shape[2], values[0].dtype),)


def _max_pool(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del constants
    window, low = window_of(op), np.iinfo(inputs[0].dtype).min
    seen = zip(taps(pad(inputs[0], window), window), inside(window), strict=True)
    best = np.stack([np.where(is_inside, view, low) for view, is_inside in seen]).max(axis=0)
    return (best.astype(inputs[0].dtype).reshape(len(best), -1),)


def _average_pool(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    """Return the sum over the count, rounded to nearest, halves away from zero."""
    del constants
    window, form = window_of(op), detail_of(op, Integers)
    centred = inputs[0].astype(np.int64) - form.padding
    views = np.stack(list(taps(pad(centred, window), window)))
    known = np.stack(list(inside(window)))
    count = known.sum(axis=0)
    if window.count_padding:
        count = np.full_like(count, len(views))
    sums = np.where(known, views + form.padding, 0).sum(axis=0)
    if window.count_padding:
        sums = sums + form.padding * (~known).sum(axis=0)
    half = np.where(sums < 0, -(count // 2), count // 2)
    quotient = np.trunc((sums + half) / count).astype(inputs[0].dtype)  # exact: below 2^53
    return (quotient.reshape(len(inputs[0]), -1),)


def _pool_lines(c: Call) -> list[str]:
    form, window = detail_of(c.op, Integers), window_of(c.op)
    arguments: list[object] = [c.outputs[0], c.inputs[0], f"&window_{c.op.outputs[0]}"]
    if "average" in c.op.kind:
        arguments += [form.padding, int(window.count_padding)]
    name = c.op.kind.replace("integer", "sf").replace("2d", f"_{SUFFIX[form.source]}")
    return [window_line(c.op, window, window.shape[2]), call(name, *arguments)]


def _expect_format(op: Op, value: Value, dtype: str) -> None:
    if value.dtype != dtype:
        raise RangeError(f"format of {op.inputs[0]}", value=value.dtype, expected=dtype)


def _dense_products(op: Op, shapes: _Shapes) -> int:
    return op.rows * int(np.prod(shapes[0]))


def _conv_products(op: Op, shapes: _Shapes) -> int:
    return window_of(op).pixels * int(np.prod(shapes[0]))


_FILES = ("sf_integer", "sf_activation")
_WINDOW_FILES = (*_FILES, "sf_nn", "sf_spatial")

KINDS: Mapping[str, Kind] = {
    "quantise": Kind((1,), _quantise_rule, _quantise, _quantise_lines, _FILES, hides=True),
    "dequantise": Kind((1,), _dequantise_rule, _dequantise, _dequantise_lines, _FILES),
    "lookup": Kind((1,), _lookup_rule, _lookup, _lookup_lines, _FILES),  # table (256)
    # constants weight (out, in), bias (out); multiplier (out) and shift (out), or scale (out)
    "integer_dense": Kind(
        (1,),
        _dense_rule,
        _dense,
        _dense_lines,
        _FILES,
        stored=_dense_stored,
        scratch=_sums_scratch,
        multiply_adds=_dense_products,
    ),
    "integer_conv2d": Kind(
        (1,),
        _conv_rule,
        _conv,
        _conv_lines,
        _WINDOW_FILES,
        stored=_conv_stored,
        scratch=_conv_scratch,
        multiply_adds=_conv_products,
    ),
    "integer_depthwise_conv2d": Kind(
        (1,),
        _conv_rule,
        _conv,
        _conv_lines,
        _WINDOW_FILES,
        stored=_depthwise_stored,
        scratch=_sums_scratch,
        multiply_adds=_conv_products,
    ),
    "integer_max_pool2d": Kind((1,), _pool_rule, _max_pool, _pool_lines, _WINDOW_FILES),
    "integer_average_pool2d": Kind((1,), _pool_rule, _average_pool, _pool_lines, _WINDOW_FILES),
}

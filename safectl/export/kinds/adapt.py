"""Adaptation of a network to drifting sensors while it runs, one sample per step, in float32.

Inputs are the observation (network inputs x, measured target) and the memory; outputs are the
prediction of the network as adapted so far, and the next memory.

`adapt_inputs` corrects every input channel, z = gain x + offset. With J the derivative of one
output by z, the gains and offsets follow a Kalman filter (recursive least squares on the linearised
network) whose covariance keeps only the 2 x 2 block of each channel. `adapt_output` is recursive
least squares of the last layer with its full covariance.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from safectl.errors import RangeError, ShapeError
from safectl.export.arithmetic import dot, multiply_add
from safectl.export.kinds.activation import FUNCTIONS
from safectl.export.kinds.kind import Call, Kind, call, expect, expect_size
from safectl.export.literals import float_literal
from safectl.export.ops import AnyArray, Array, Op, Shape, Value

ACTIVATIONS = ("relu", "tanh", "sigmoid")
"""Of every layer; their slope follows from their output."""

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_LEAST_SLOPE = np.float32(0.05)


class _Pass(NamedTuple):
    """Values and slopes of every layer, (batch, width) each."""

    values: list[Array]
    slopes: list[Array]


def _layers(constants: Sequence[AnyArray]) -> list[tuple[Array, Array]]:
    return list(zip(constants[::2], constants[1::2], strict=True))


def _forward(op: Op, layers: Sequence[tuple[Array, Array]], x: Array) -> _Pass:
    values, slopes = [], []
    for weight, bias in layers:
        x = FUNCTIONS[op.activation](multiply_add(x, weight, bias), _ZERO)
        values.append(x)
        slopes.append(_slope(op, x))
    return _Pass(values, slopes)


def _network_shapes(op: Op, shapes: Sequence[Shape], inputs: int) -> list[Shape]:
    """Return the shapes that weights and biases should have; the last layer has p rows."""
    if op.activation not in ACTIVATIONS:
        raise RangeError("activation", value=op.activation, expected=f"one of {ACTIVATIONS}")
    wanted: list[Shape] = []
    for shape in shapes[::2]:
        rows = shape[0] if shape else 0
        wanted += [(rows, inputs), (rows,)]
        inputs = rows
    return wanted


def _inputs_rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    n = shapes[2][1] if len(shapes) > 3 and len(shapes[2]) == 2 else 0
    wanted = _network_shapes(op, shapes[2:], n)
    expect(op, shapes, [(4,), (5 * n + 2,), *wanted])
    p = wanted[-1][0]
    expect_size(op, 0, values[0], n + p)
    expect_size(op, 1, values[1], 5 * n + 2)
    return Value(p), values[1]


def _inputs(
    op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]
) -> tuple[AnyArray, ...]:
    (observation, memory), (settings, factory) = inputs, constants[:2]
    noise, band, limit, window = settings
    layers = _layers(constants[2:])
    n = layers[0][0].shape[1]
    x, target = observation[:, :n], observation[:, n:]
    adapted = _forward(op, layers, memory[:, :n] * x + memory[:, n : 2 * n])
    original = _forward(op, layers, x).values[-1]
    prediction = adapted.values[-1]
    parts = [part.copy() for part in np.split(memory, [n, 2 * n, 3 * n, 4 * n, 5 * n], axis=1)]
    gain, offset, vg, vo, vc, judge = parts
    for o in range(prediction.shape[1]):
        jacobian = _back(layers, adapted.slopes, o)
        innovation, variance = target[:, o] - prediction[:, o], np.full(len(x), noise)
        for k in range(n):
            j, jx = jacobian[:, k], jacobian[:, k] * x[:, k]
            moved_gain, moved_offset = gain[:, k] - memory[:, k], offset[:, k] - memory[:, n + k]
            innovation = innovation - (jx * moved_gain + j * moved_offset)
            toward_gain = vg[:, k] * jx + vc[:, k] * j
            toward_offset = vc[:, k] * jx + vo[:, k] * j
            variance = variance + (jx * toward_gain + j * toward_offset)
        size = np.where(innovation < _ZERO, -innovation, innovation)
        learns = ((size > band) & (size < limit))[:, None]
        inverse = (_ONE / variance)[:, None]
        j, jx = jacobian, jacobian * x
        toward_gain, toward_offset = vg * jx + vc * j, vc * jx + vo * j
        gain_share, offset_share = toward_gain * inverse, toward_offset * inverse
        gain += np.where(learns, gain_share * innovation[:, None], _ZERO)
        offset += np.where(learns, offset_share * innovation[:, None], _ZERO)
        vg -= np.where(learns, gain_share * toward_gain, _ZERO)
        vc -= np.where(learns, gain_share * toward_offset, _ZERO)
        vo -= np.where(learns, offset_share * toward_offset, _ZERO)
    score = judge[:, 0]
    for i in range(prediction.shape[1]):
        ours, theirs = target[:, i] - prediction[:, i], target[:, i] - original[:, i]
        score = score + (theirs * theirs - ours * ours)
    samples = judge[:, 1] + _ONE
    is_over = samples >= window
    following = np.concatenate([gain, offset, vg, vo, vc], axis=1)
    following = np.where((is_over & (score < _ZERO))[:, None], factory[: 5 * n], following)
    judged = np.where(is_over, _ZERO, np.stack([score, samples])).T
    return prediction, np.concatenate([following, judged], axis=1)


def _back(layers: Sequence[tuple[Array, Array]], slopes: Sequence[Array], o: int) -> Array:
    """Return the derivative of output o by the corrected inputs, (batch, n)."""
    row = np.zeros_like(slopes[-1])
    row[:, o] = _ONE
    for (weight, _), slope in zip(reversed(layers), reversed(slopes), strict=True):
        before = np.zeros((len(row), weight.shape[1]), np.float32)
        for i in range(len(weight)):
            before = before + (row[:, i] * slope[:, i])[:, None] * weight[i]
        row = before
    return row


def _places(op: Op, shapes: Sequence[Shape]) -> dict[str, int]:
    """Return the offset of every part of the working memory, and its size as `size`."""
    first = 2 if op.kind == "adapt_inputs" else 1
    weights = [shape for shape in shapes[first:] if len(shape) == 2]
    n = weights[0][1]
    sizes = {"z": n}
    for index, (rows, _) in enumerate(weights):
        sizes[f"value_{index}"] = rows + 1  # room for the one of the least squares
        sizes[f"slope_{index}"] = rows
    widest = max(n, *(rows for rows, _ in weights))
    sizes |= {"row": widest, "before": widest}
    places, offset = {}, 0
    for name, size in sizes.items():
        places[name] = offset
        offset += size
    return places | {"size": offset}


def _scratch(op: Op, shapes: Sequence[Shape]) -> tuple[Value, ...]:
    return (Value(_places(op, shapes)["size"]),)


def _network_lines(
    c: Call, at: Mapping[str, str], first: int, source: str, *, has_slopes: bool
) -> list[str]:
    lines = []
    for index in range((len(c.tables) - first) // 2):
        weight, bias = c.tables[first + 2 * index : first + 2 * index + 2]
        rows, inputs = c.constants[first + 2 * index].shape
        value = at[f"value_{index}"]
        lines.append(call("sf_rows_value", value, source, weight, bias, inputs, inputs, rows))
        lines.append(call(f"sf_{c.op.activation}", value, value, rows))
        if has_slopes:
            lines.append(call(f"sf_slope_{c.op.activation}", at[f"slope_{index}"], value, rows))
        source = value
    return lines


def _inputs_lines(c: Call) -> list[str]:
    shapes = [array.shape for array in c.constants]
    at = {name: f"{c.scratch[0]} + {offset}" for name, offset in _places(c.op, shapes).items()}
    n, p, last = shapes[2][1], c.results[0], (len(shapes) - 2) // 2 - 1
    x, memory, following = c.inputs[0], c.inputs[1], c.outputs[1]
    noise, band, limit, window = (float_literal(value) for value in c.constants[0])
    back = []
    row, before = at["row"], at["before"]
    for index in reversed(range(last + 1)):
        weight, (rows, inputs) = c.tables[2 + 2 * index], shapes[2 + 2 * index]
        slope = at[f"slope_{index}"]
        back.append(call("sf_adapt_back", before, row, slope, weight, inputs, rows))
        row, before = before, row
    error = f"({x})[{n}u + o] - ({c.outputs[0]})[o]"
    update = (following, memory, x, row, error, noise, band, limit, n)
    target, value = f"{x} + {n}", at[f"value_{last}"]
    judge = (following, c.outputs[0], value, target, c.tables[1], window, p, n)
    return [
        call("sf_adapt_correct", at["z"], x, memory, n),
        *_network_lines(c, at, 2, at["z"], has_slopes=True),
        call("sf_copy", c.outputs[0], value, p),
        call("sf_copy", following, memory, c.results[1]),
        f"for (size_t o = 0; o < {p}u; o++) {{",
        f"    {call('sf_fill', at['row'], '0.0f', p)}",
        f"    ({at['row']})[o] = 1.0f;",
        *[f"    {line}" for line in (*back, call("sf_adapt_update", *update))],
        "}",
        *_network_lines(c, at, 2, x, has_slopes=False),
        call("sf_adapt_judge", *judge),
    ]


def _settings_aside(op: Op, constants: Sequence[AnyArray]) -> Sequence[AnyArray | None]:
    """Store all but the settings, which the statements hold; weights stay row after row."""
    del op
    return [None, *constants[1:]]


def _output_rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    n = shapes[1][1] if len(shapes) > 2 and len(shapes[1]) == 2 else 0
    wanted = _network_shapes(op, shapes[1:], n)
    expect(op, shapes, [(1,), *wanted])
    h, p = wanted[-1][0], values[0].size - n
    if p < 1:
        raise ShapeError(f"value {op.inputs[0]}", expected=(n + 1,), got=(values[0].size,))
    expect_size(op, 1, values[1], p * h + p + (h + 1) ** 2)
    return Value(p), values[1]


def _output(
    op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]
) -> tuple[AnyArray, ...]:
    (observation, memory), forgetting = inputs, constants[0][0]
    layers = _layers(constants[1:])
    batch, n, h = len(observation), layers[0][0].shape[1], len(layers[-1][0])
    x, target = observation[:, :n], observation[:, n:]
    p = target.shape[1]
    hidden = _forward(op, layers, x).values[-1]
    weight, bias, covariance = np.split(memory, [p * h, p * h + p], axis=1)
    weight = weight.reshape(batch, p, h)
    covariance = covariance.reshape(batch, h + 1, h + 1)
    total = bias
    for k in range(h):
        total = total + weight[:, :, k] * hidden[:, k, None]
    prediction = FUNCTIONS[op.activation](total, _ZERO)
    slope = _slope(op, prediction)
    extended = np.concatenate([hidden, np.ones((batch, 1), np.float32)], axis=1)
    gain = dot(covariance, extended[:, None])
    scale = np.full(batch, forgetting)
    for i in range(h + 1):
        scale = scale + extended[:, i] * gain[:, i]
    inverse = (_ONE / scale)[:, None]
    wanted = (target - prediction) / np.where(slope < _LEAST_SLOPE, _LEAST_SLOPE, slope) * inverse
    weight = weight + wanted[:, :, None] * gain[:, None, :h]
    bias = bias + wanted * gain[:, h:]
    less = gain[:, :, None] * gain[:, None] * inverse[:, None]
    covariance = (covariance - less) * (_ONE / forgetting)
    parts = (weight, bias, covariance)
    return prediction, np.concatenate([part.reshape(batch, -1) for part in parts], axis=1)


def _slope(op: Op, value: Array) -> Array:
    match op.activation:
        case "relu":
            return np.where(value > _ZERO, _ONE, _ZERO)
        case "tanh":
            return _ONE - value * value
        case _:
            return value * (_ONE - value)


def _output_lines(c: Call) -> list[str]:
    shapes = [array.shape for array in c.constants]
    at = {name: f"{c.scratch[0]} + {offset}" for name, offset in _places(c.op, shapes).items()}
    n, p = shapes[1][1], c.results[0]
    last = (len(shapes) - 1) // 2 - 1
    h, hidden = shapes[-1][0], at[f"value_{last}"]
    x, memory, following = c.inputs[0], c.inputs[1], c.outputs[1]
    forgetting = float_literal(c.constants[0][0])
    value = (c.outputs[0], hidden, memory, f"{memory} + {p * h}", h, h, p)
    squares = (following, hidden, at["before"], at["row"], at["z"], forgetting, h, p)
    return [
        *_network_lines(c, at, 1, x, has_slopes=False),
        call("sf_rows_value", *value),
        call(f"sf_{c.op.activation}", c.outputs[0], c.outputs[0], p),
        call(f"sf_slope_{c.op.activation}", at["z"], c.outputs[0], p),
        f"for (size_t o = 0; o < {p}u; o++) {{",
        f"    ({at['row']})[o] = ({x})[{n}u + o] - ({c.outputs[0]})[o];",
        "}",
        call("sf_copy", following, memory, c.results[1]),
        call("sf_adapt_least_squares", *squares),
    ]


_FILES = ("sf_nn", "sf_activation", "sf_tangent", "sf_adapt")

KINDS: Mapping[str, Kind] = {
    # constants noise variance, band, clip, window (4); factory memory (5 n + 2); weight, bias per
    # layer
    "adapt_inputs": Kind(
        (2,),
        _inputs_rule,
        _inputs,
        _inputs_lines,
        _FILES,
        stored=_settings_aside,
        scratch=_scratch,
    ),
    # constants forgetting (1); weight, bias per layer but the last, which is in the memory
    "adapt_output": Kind(
        (2,),
        _output_rule,
        _output,
        _output_lines,
        _FILES,
        stored=_settings_aside,
        scratch=_scratch,
    ),
}

"""Fixed-point training with two forward passes: gains and offsets of the inputs in Q4.12.

Along a random direction v of ones and minus ones, the difference d = L(t + e v) - L(t - e v) of two
losses gives the update t - (d v >> shift). The direction is drawn again from its seed wherever it
is needed, so it takes no memory. Every number is a whole number of 1/4096; the memory holds them as
floats, which are exact. Source of the idea: Feng et al., NeurIPS 2024, arXiv 2411.04036.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError
from safectl.export.arithmetic import clip
from safectl.export.kinds.kind import Call, Kind, call, detail_of, expect, expect_size
from safectl.export.ops import AnyArray, Array, ForwardGradient, Op, Shape, Value

ONE_BITS = 12
TANH_TABLE = np.array([round(4096.0 * math.tanh(i / 16.0)) for i in range(66)], np.int64)
"""tanh(i / 16); between them it is a straight line, off by at most 4e-4."""

_LARGEST_STEP_BITS = 6
_TWO = 2 << ONE_BITS
_Integers = npt.NDArray[np.int64]


def require_no_overflow(layers: Sequence[tuple[AnyArray, AnyArray]]) -> None:
    """Refuse weights whose sums could leave 32 bits.

    Raises:
        RangeError: With the largest possible sum.
    """
    for weight, bias in layers:
        rows = np.abs(weight.astype(np.int64)).sum(axis=1) * _TWO
        largest = int((rows + np.abs(bias.astype(np.int64)) * (1 << ONE_BITS)).max())
        if largest >= 2**31:
            raise RangeError("largest sum of a layer", value=largest, expected="below 2^31")


def _rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    detail = detail_of(op, ForwardGradient)
    count = len(detail.is_tanh)
    n = inputs = shapes[0][1] if shapes and len(shapes[0]) == 2 else 0
    wanted: list[Shape] = []
    for index in range(count):
        rows = shapes[2 * index][0] if 2 * index < len(shapes) else 0
        wanted += [(rows, inputs), (rows,)]
        inputs = rows
    expect(op, shapes, wanted)
    expect_size(op, 0, values[0], n + inputs)
    expect_size(op, 1, values[1], 2 * n + 3)
    return Value(inputs), values[1]


def _meaning(
    op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]
) -> tuple[AnyArray, ...]:
    detail, (observation, memory) = detail_of(op, ForwardGradient), inputs
    layers = list(zip(constants[::2], constants[1::2], strict=True))
    n = layers[0][0].shape[1]
    x, target = _fixed(observation[:, :n]), _fixed(observation[:, n:])
    known = memory.astype(np.int64)
    parameters, seed = known[:, : 2 * n], (known[:, 2 * n] << 16) | known[:, 2 * n + 1]
    direction, state = _direction(seed, n)
    outputs = _network(detail, layers, parameters, x)
    move = direction * (1 << detail.exponent)
    above, below = (
        _loss(_network(detail, layers, parameters + sign * move, x), target) for sign in (1, -1)
    )
    difference = above - below
    size, before = np.abs(difference), known[:, 2 * n + 2]
    recent = np.where(size > before, size, before - (before >> 6))
    learns = (above + below > detail.band) & (size < detail.clip)
    shift = np.full_like(recent, detail.shift)
    for _ in range(32):
        shift += ((recent >> shift) >> _LARGEST_STEP_BITS) > 0
    step = np.where(learns, difference >> shift, 0)
    parameters = np.clip(parameters - direction * step[:, None], -32767, 32767)
    rest = np.stack([state >> 16, state & 0xFFFF, np.clip(recent, 0, 1 << 24)], axis=1)
    following = np.concatenate([parameters, rest], axis=1).astype(np.float32)
    prediction = outputs.astype(np.float32) * np.float32(1.0 / 4096.0)
    return prediction, following


def _fixed(values: Array) -> _Integers:
    limited = clip(values, np.float32(-2.0), np.float32(2.0)) * np.float32(4096.0)
    return np.where(np.isfinite(limited), limited, np.float32(0.0)).astype(np.int64)


def _direction(seed: _Integers, n: int) -> tuple[_Integers, _Integers]:
    """Return ones and minus ones, (batch, 2 n), gains first, and the random state afterwards."""
    state, mask = seed.copy(), 0xFFFFFFFF
    gains, offsets = [], []
    for _ in range(n):
        state ^= (state << 13) & mask
        state ^= state >> 17
        state = (state ^ (state << 5)) & mask
        gains.append(np.where(state & 1, 1, -1))
        offsets.append(np.where(state & 2, 1, -1))
    return np.stack(gains + offsets, axis=1), state


def _network(
    detail: ForwardGradient,
    layers: Sequence[tuple[AnyArray, AnyArray]],
    parameters: _Integers,
    x: _Integers,
) -> _Integers:
    n = x.shape[1]
    value = np.clip(((parameters[:, :n] * x) >> ONE_BITS) + parameters[:, n:], -_TWO, _TWO)
    for (weight, bias), is_tanh in zip(layers, detail.is_tanh, strict=True):
        total = value @ weight.T.astype(np.int64) + (bias.astype(np.int64) << ONE_BITS)
        total = total >> ONE_BITS
        value = _tanh(total) if is_tanh else np.clip(total, -_TWO, _TWO)
    return value


def _tanh(value: _Integers) -> _Integers:
    size = np.minimum(np.abs(value), 4 << ONE_BITS)
    low, rest = TANH_TABLE[size >> 8], size & 255
    result: _Integers = low + (((TANH_TABLE[(size >> 8) + 1] - low) * rest) >> 8)
    return np.where(value < 0, -result, result)


def _loss(outputs: _Integers, target: _Integers) -> _Integers:
    total: _Integers = ((target - outputs) ** 2 >> 6).sum(axis=1)
    return total


def _width(shapes: Sequence[Shape]) -> int:
    return max(shapes[0][1], *(shape[0] for shape in shapes))


def _scratch(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    del op, sizes
    return (Value(2 * _width(shapes), "int32"),)


def _lines(c: Call) -> list[str]:
    detail = detail_of(c.op, ForwardGradient)
    shapes = [array.shape for array in c.constants]
    n, p, width = shapes[0][1], c.results[0], _width(shapes)
    layers = []
    for index, is_tanh in enumerate(detail.is_tanh):
        rows, inputs = shapes[2 * index]
        weight, bias = c.tables[2 * index : 2 * index + 2]
        layers.append(f"    {{{weight}, {bias}, {inputs}, {rows}, {int(is_tanh)}}},")
    numbers = f"layers, {len(layers)}, {n}, {p}, {width}, {detail.exponent}, {detail.shift}"
    target = f"{c.inputs[0]} + {n}"
    places = (c.outputs[1], c.outputs[0], c.inputs[0], target, c.inputs[1])
    return [
        f"const sf_fixed_layer layers[{len(layers)}] = {{",
        *layers,
        "};",
        f"const sf_forward_gradient problem = {{{numbers},",
        f"    {detail.band}, {detail.clip}}};",
        call("sf_adapt_forward", *places, "&problem", c.scratch[0]),
    ]


KINDS: Mapping[str, Kind] = {
    # constants int16 weight (rows, in), bias (rows) per layer
    "adapt_forward": Kind((2,), _rule, _meaning, _lines, ("sf_nn", "sf_adapt"), scratch=_scratch),
}

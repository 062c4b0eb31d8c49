"""What models and barriers are made of: constants, products, angles, discs, braking distances."""

from collections.abc import Mapping, Sequence

import numpy as np

from safectl.errors import ShapeError
from safectl.export.arithmetic import dot
from safectl.export.geometry import (
    cosine,
    discs,
    least,
    sine,
    soft_least,
    stopping_distance,
    superellipse,
)
from safectl.export.kinds.kind import (
    Call,
    Kind,
    call,
    columns,
    detail_of,
    expect,
    expect_size,
    same,
)
from safectl.export.literals import float_literal
from safectl.export.ops import AnyArray, Loop, Op, Shape, Value

_Values = Sequence[Value]
_Shapes = Sequence[Shape]
_Arrays = Sequence[AnyArray]


def _constant_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    del values
    size = shapes[0][0] if len(shapes) == 1 and len(shapes[0]) == 1 else 1
    expect(op, shapes, [(size,)])
    return (Value(size),)


def _constant(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    return (np.repeat(constants[0][None], len(inputs[0]), axis=0),)


def _constant_lines(c: Call) -> list[str]:
    return [call("sf_copy", c.outputs[0], c.tables[0], c.results[0])]


def _matmul_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    inner = columns(op, values[0])
    if values[1].size % inner:
        expected = (f"a multiple of {inner}",)
        raise ShapeError(f"value {op.inputs[1]}", expected=expected, got=(values[1].size,))
    return (Value(op.rows * (values[1].size // inner)),)


def _matmul(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del constants
    batch = len(inputs[0])
    left = inputs[0].reshape(batch, op.rows, -1)
    right = inputs[1].reshape(batch, left.shape[2], -1)
    product = dot(left[:, :, None], right.transpose(0, 2, 1)[:, None])
    return (product.reshape(batch, -1),)


def _matmul_lines(c: Call) -> list[str]:
    inner = c.sizes[0] // c.op.rows
    return [call("sf_matmul", c.outputs[0], *c.inputs, c.op.rows, inner, c.sizes[1] // inner)]


def _divide_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    return (Value(same(op, values)),)


def _unary_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    return (values[0],)


def _simple_lines(c: Call) -> list[str]:
    return [call(f"sf_{c.op.kind}", c.outputs[0], *c.inputs, c.sizes[0])]


def _discs_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [(1,)])
    axes = values[0].size
    if values[1].size % axes:
        expected = (f"a multiple of {axes}",)
        raise ShapeError(f"value {op.inputs[1]}", expected=expected, got=(values[1].size,))
    return (Value(values[1].size // axes), Value(values[1].size))


def _discs(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    position, centres = inputs
    shape = (len(position), -1, position.shape[1])
    value, gradient = discs(position, centres.reshape(shape), constants[0][0])
    return value, gradient.reshape(centres.shape)


def _discs_lines(c: Call) -> list[str]:
    radius = float_literal(c.constants[0][0])
    return [call("sf_discs", *c.outputs, *c.inputs, radius, c.sizes[0], c.results[0])]


def _superellipse_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    detail_of(op, Loop)
    expect(op, shapes, [(values[0].size,)] * 2)
    return (Value(1), values[0])


def _superellipse(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    centre, inverse = constants
    return superellipse(inputs[0], centre, inverse, detail_of(op, Loop).iterations)


def _superellipse_lines(c: Call) -> list[str]:
    counts = (c.sizes[0], detail_of(c.op, Loop).iterations)
    return [call("sf_superellipse", *c.outputs, c.inputs[0], *c.tables, *counts)]


def _least_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [(1,)] if shapes else [])
    count = values[0].size
    if values[1].size % count:
        expected = (f"a multiple of {count}",)
        raise ShapeError(f"value {op.inputs[1]}", expected=expected, got=(values[1].size,))
    return (Value(1), Value(values[1].size // count))


def _least(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    values, gradients = inputs
    gradients = gradients.reshape(*values.shape, -1)
    return soft_least(values, gradients, constants[0][0]) if constants else least(values, gradients)


def _least_lines(c: Call) -> list[str]:
    arguments = (*c.outputs, *c.inputs, c.sizes[0], c.results[1])
    if not c.constants:
        return [call("sf_least", *arguments)]
    return [call("sf_soft_least", *arguments, float_literal(c.constants[0][0]))]


def _stopping_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    axes = values[0].size // 2
    expect(op, shapes, [(axes,), (axes,), (1,), (1,)])
    expect_size(op, 0, values[0], 2 * axes)
    return (Value(2 * axes), Value(4 * axes * axes))


def _stopping(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    low, high, period, step = constants
    value, gradient = stopping_distance(inputs[0], low, high, period[0], step[0])
    return value, gradient.reshape(len(value), -1)


def _stopping_stored(op: Op, constants: _Arrays) -> Sequence[AnyArray | None]:
    del op
    return [*constants[:2], None, None]


def _stopping_lines(c: Call) -> list[str]:
    numbers = [float_literal(array[0]) for array in c.constants[2:]]
    arguments = (*c.outputs, c.inputs[0], *c.tables[:2], *numbers, c.sizes[0] // 2)
    return [call("sf_stopping_distance", *arguments)]


KINDS: Mapping[str, Kind] = {
    # input any value, which only says how many rows there are; constant values (n)
    "constant": Kind((1,), _constant_rule, _constant, _constant_lines, ()),
    "matmul": Kind((2,), _matmul_rule, _matmul, _matmul_lines, ("sf_nn", "sf_geometry")),
    "divide": Kind(
        (2,),
        _divide_rule,
        lambda op, inputs, constants: (inputs[0] / inputs[1],),
        _simple_lines,
        ("sf_geometry",),
    ),
    "sine": Kind(
        (1,),
        _unary_rule,
        lambda op, inputs, constants: (sine(inputs[0]),),
        _simple_lines,
        ("sf_geometry",),
    ),
    "cosine": Kind(
        (1,),
        _unary_rule,
        lambda op, inputs, constants: (cosine(inputs[0]),),
        _simple_lines,
        ("sf_geometry",),
    ),
    # inputs position (d), centres (count d); constant radius (1)
    "discs": Kind(
        (2,), _discs_rule, _discs, _discs_lines, ("sf_geometry",), stored=lambda *_: [None]
    ),
    # input position (d); constants centre (d), one over the half axes (d)
    "superellipse": Kind(
        (1,), _superellipse_rule, _superellipse, _superellipse_lines, ("sf_geometry",)
    ),
    # inputs values (m), gradients (m d); constant sharpness (1) for the soft minimum
    "least": Kind(
        (2,),
        _least_rule,
        _least,
        _least_lines,
        ("sf_geometry",),
        stored=lambda op, constants: [None for _ in constants],
    ),
    # input positions and velocities (2 d); constants low (d), high (d), period (1), step (1)
    "stopping_distance": Kind(
        (1,),
        _stopping_rule,
        _stopping,
        _stopping_lines,
        ("sf_geometry",),
        stored=_stopping_stored,
    ),
}

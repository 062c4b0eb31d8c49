"""Dense layers, and layer normalisation, over the last axis of their input."""

from collections.abc import Mapping, Sequence

import numpy as np

from safectl.errors import RangeError
from safectl.export.arithmetic import multiply_add, reciprocal_root, total
from safectl.export.kinds.activation import activate, activation_lines
from safectl.export.kinds.kind import Call, Kind, call, columns, expect
from safectl.export.literals import float_literal
from safectl.export.ops import AnyArray, Array, Op, Shape, Value

BLOCK_WIDTHS = (4, 2, 1)
"""Outputs that one pass of `sf_dense` computes side by side, widest first."""


def block_weights(weight: Array) -> Array:
    """Order an (out, in) matrix as `sf_dense` reads it: blocks of rows, transposed; shape (n,)."""
    parts, row = [], 0
    for width in BLOCK_WIDTHS:
        while row + width <= len(weight):
            parts.append(weight[row : row + width].T.ravel())
            row += width
    return np.concatenate(parts)


def _dense_rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    outputs = shapes[0][0] if shapes and shapes[0] else 0
    if not outputs:
        raise RangeError("outputs of dense", value=op.constants, expected="a weight of (out, in)")
    expect(op, shapes, [(outputs, columns(op, values[0])), (outputs,)])
    return (Value(op.rows * outputs),)


def _dense(op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]) -> tuple[Array]:
    batch = len(inputs[0])
    result = multiply_add(inputs[0].reshape(batch, op.rows, -1), *constants)
    return (activate(op, result.reshape(batch, -1)),)


def _dense_stored(op: Op, constants: Sequence[AnyArray]) -> Sequence[AnyArray | None]:
    del op
    return [block_weights(constants[0]), constants[1]]


def _dense_lines(c: Call) -> list[str]:
    rows, size = c.op.rows, c.results[0]
    counts = f"{c.sizes[0] // rows}, {size // rows}"
    function = "sf_dense" if rows == 1 else "sf_dense_rows"
    arguments = [c.outputs[0], c.inputs[0], *c.tables, *([] if rows == 1 else [rows]), counts]
    return [call(function, *arguments), *activation_lines(c.op, c.outputs[0], c.outputs[0], size)]


def _norm_rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    width = columns(op, values[0])
    expect(op, shapes, [(width,), (width,), (1,)])
    return (values[0],)


def _norm(op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]) -> tuple[Array]:
    """Return (x - mean) / sqrt(variance + epsilon) * gain + shift over each row."""
    gain, shift, epsilon = constants
    x = inputs[0].reshape(len(inputs[0]), op.rows, -1)
    share = np.float32(1.0) / np.float32(x.shape[2])
    centred = x - (total(x) * share)[..., None]
    variance = total(centred * centred) * share
    scaled = centred * reciprocal_root(variance + epsilon)[..., None]
    return ((scaled * gain + shift).reshape(inputs[0].shape),)


def _norm_stored(op: Op, constants: Sequence[AnyArray]) -> Sequence[AnyArray | None]:
    del op
    return [*constants[:2], None]


def _norm_lines(c: Call) -> list[str]:
    epsilon, rows = float_literal(c.constants[2][0]), c.op.rows
    share = float_literal(np.float32(1.0) / np.float32(c.sizes[0] // rows))
    arguments = (c.outputs[0], c.inputs[0], *c.tables[:2], epsilon, share)
    return [call("sf_layer_norm", *arguments, rows, c.sizes[0] // rows)]


def _dense_products(op: Op, shapes: Sequence[Shape]) -> int:
    return op.rows * int(np.prod(shapes[0]))


KINDS: Mapping[str, Kind] = {
    # constants weight (out, in), bias (out)
    "dense": Kind(
        (1,),
        _dense_rule,
        _dense,
        _dense_lines,
        ("sf_nn", "sf_activation"),
        stored=_dense_stored,
        multiply_adds=_dense_products,
    ),
    # constants gain (n), shift (n), epsilon (1)
    "layer_norm": Kind((1,), _norm_rule, _norm, _norm_lines, ("sf_nn",), stored=_norm_stored),
}

"""Iterations on data of the program: ascent on a critic, and a quadratic program on a box."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from safectl.errors import RangeError, UnknownNameError
from safectl.export.box_qp import box_qp
from safectl.export.critic import SMOOTH, Layer, correct
from safectl.export.kinds.dense import block_weights
from safectl.export.kinds.kind import Call, Kind, call, detail_of, expect, expect_size
from safectl.export.literals import float_literal
from safectl.export.ops import AnyArray, Loop, Op, Shape, Value

_Values = Sequence[Value]
_Shapes = Sequence[Shape]
_Arrays = Sequence[AnyArray]
_SHAPES = {"none": "SF_LINEAR", "relu": "SF_RELU", "tanh": "SF_TANH", "sigmoid": "SF_SIGMOID"}
_AHEAD = 3  # constants low, high and step come before the weights


def _correct_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    detail_of(op, Loop)
    if op.activation not in SMOOTH:
        raise UnknownNameError("activation of a critic", op.activation, known=SMOOTH)
    if len(shapes) < _AHEAD + 1 or len(shapes) % 2:
        raise RangeError("constants of correct", value=op.constants, expected="limits and weights")
    size, widths = values[0].size, _widths(shapes)
    ahead = [(size,), (size,), (1,), (widths[0], size)]
    layers = [[(after, before), (after,)] for before, after in pairwise(widths)]
    expect(op, shapes, [*ahead, *(shape for layer in layers for shape in layer)])
    expect_size(op, 1, values[1], widths[0])
    expect_size(op, 2, values[2], widths[-1])
    return (values[0], Value(2))


def _widths(shapes: _Shapes) -> list[int]:
    """Outputs of each layer."""
    weights = [shapes[_AHEAD], *shapes[_AHEAD + 1 :: 2]]
    return [shape[0] if shape else 0 for shape in weights]


def _correct(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    action, base, bound = inputs
    loop = detail_of(op, Loop)
    weights = [constants[_AHEAD], *constants[_AHEAD + 1 :: 2]]
    biases = [base, *constants[_AHEAD + 2 :: 2]]
    kinds = [op.activation] * (len(weights) - 1) + ["none"]
    found = correct(
        [Layer(*layer) for layer in zip(weights, biases, kinds, strict=True)],
        action,
        bound,
        (constants[0], constants[1]),
        step=constants[2][0],
        newton=loop.newton,
        iterations=loop.iterations,
        aim=np.float32(loop.aim),
    )
    return found.action, np.stack([found.room, found.start_room], axis=1)


def _correct_stored(op: Op, constants: _Arrays) -> Sequence[AnyArray | None]:
    del op
    tables: list[AnyArray | None] = [*constants[:2], None]
    return [
        *tables,
        *(block_weights(array) if array.ndim == 2 else array for array in constants[_AHEAD:]),
    ]


def _correct_scratch(op: Op, sizes: Sequence[int], shapes: _Shapes) -> tuple[Value, ...]:
    del op
    widths = _widths(shapes)
    return (Value(sizes[0] + sum(widths) + 2 * max(*widths, sizes[0])),)


def _correct_lines(c: Call) -> list[str]:
    loop, name = detail_of(c.op, Loop), c.op.outputs[0]
    widths = [c.sizes[0], *_widths([array.shape for array in c.constants])]
    weights = [c.tables[_AHEAD], *c.tables[_AHEAD + 1 :: 2]]
    biases = [c.inputs[1], *c.tables[_AHEAD + 2 :: 2]]
    kinds = [_SHAPES[c.op.activation]] * (len(weights) - 1) + ["SF_LINEAR"]
    rows = zip(weights, biases, pairwise(widths), kinds, strict=True)
    return [
        f"const sf_layer layers_{name}[{len(weights)}] = {{",
        *(f"    {{{w}, {b}, {before}, {after}, {k}}}," for w, b, (before, after), k in rows),
        "};",
        f"const sf_critic critic_{name} = {{.layers = layers_{name}, .count = {len(weights)},",
        f"    .low = {c.tables[0]}, .high = {c.tables[1]}, .size = {c.sizes[0]},",
        f"    .step = {float_literal(c.constants[2][0])}, .newton = {int(loop.newton)},",
        f"    .aim = {float_literal(np.float32(loop.aim))}, .iterations = {loop.iterations},",
        f"    .widest = {max(widths)}}};",
        call("sf_correct", *c.outputs, c.scratch[0], c.inputs[0], c.inputs[2], f"&critic_{name}"),
    ]


def _correct_products(op: Op, shapes: _Shapes) -> int:
    """Every iteration evaluates the critic and its gradient."""
    weights = sum(shape[0] * shape[1] for shape in shapes[_AHEAD:] if len(shape) == 2)
    return (2 * detail_of(op, Loop).iterations + 1) * weights


def _box_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    detail_of(op, Loop)
    size = values[0].size
    expect(op, shapes, [(size, size), (size,), (size,)])
    return (values[0],)


def _box(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    weight, low, high = constants
    return (box_qp(inputs[0], weight, low, high, detail_of(op, Loop).iterations),)


def _box_stored(op: Op, constants: _Arrays) -> Sequence[AnyArray | None]:
    del op
    return [block_weights(constants[0]), *constants[1:]]


def _box_scratch(op: Op, sizes: Sequence[int], shapes: _Shapes) -> tuple[Value, ...]:
    del op, shapes
    return (Value(3 * sizes[0]),)


def _box_products(op: Op, shapes: _Shapes) -> int:
    return detail_of(op, Loop).iterations * shapes[0][0] ** 2


def _box_lines(c: Call) -> list[str]:
    name = f"problem_{c.op.outputs[0]}"
    return [
        f"const sf_box_problem {name} = {{.weight = {c.tables[0]}, .low = {c.tables[1]},",
        f"    .high = {c.tables[2]}, .size = {c.sizes[0]},",
        f"    .iterations = {detail_of(c.op, Loop).iterations}}};",
        call("sf_box_qp", c.outputs[0], c.scratch[0], c.inputs[0], f"&{name}"),
    ]


KINDS: Mapping[str, Kind] = {
    # inputs action (n), first layer without the action (h), bound (m); constants low (n), high (n),
    # step (1), weight (h, n), then weight (out, in) and bias (out) of each further layer; outputs
    # the action and the room there and at the input
    "correct": Kind(
        (3,),
        _correct_rule,
        _correct,
        _correct_lines,
        ("sf_nn", "sf_critic"),
        stored=_correct_stored,
        scratch=_correct_scratch,
        multiply_adds=_correct_products,
    ),
    # input centre (n); constants weight (n, n), low (n), high (n)
    "box_qp": Kind(
        (1,),
        _box_rule,
        _box,
        _box_lines,
        ("sf_nn", "sf_box_qp"),
        stored=_box_stored,
        scratch=_box_scratch,
        multiply_adds=_box_products,
    ),
}

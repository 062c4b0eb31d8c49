"""Operations on whole vectors: entry by entry, rearrangements, and the dot product."""

from collections.abc import Mapping, Sequence

import numpy as np

from safectl.errors import RangeError
from safectl.export.arithmetic import clip, dot
from safectl.export.kinds.kind import (
    Call,
    Kind,
    call,
    columns,
    detail_of,
    expect,
    same,
)
from safectl.export.literals import float_literal
from safectl.export.ops import AnyArray, Op, Shape, Strides, Value

_Values = Sequence[Value]
_Shapes = Sequence[Shape]
_Arrays = Sequence[AnyArray]
_MOST_AXES = 4


def _normalise_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [(values[0].size,)] * 3 + [(1,)])
    return (values[0],)


def _normalise(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    mean, scale, shift, limit = constants
    return (clip((inputs[0] - mean) * scale + shift, -limit, limit),)


def _normalise_stored(op: Op, constants: _Arrays) -> Sequence[AnyArray | None]:
    del op
    return [*constants[:3], None]


def _normalise_lines(c: Call) -> list[str]:
    limit = float_literal(c.constants[3][0])
    return [call("sf_normalise", c.outputs[0], c.inputs[0], *c.tables[:3], limit, c.sizes[0])]


def _affine_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [(columns(op, values[0]),)] * 2)
    return (values[0],)


def _affine(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    gain, shift = (np.tile(array, op.rows) for array in constants)
    return (inputs[0] * gain + shift,)


def _affine_lines(c: Call) -> list[str]:
    arguments = (c.outputs[0], c.inputs[0], *c.tables)
    if c.op.rows == 1:
        return [call("sf_affine", *arguments, c.sizes[0])]
    return [call("sf_affine_rows", *arguments, c.op.rows, c.sizes[0] // c.op.rows)]


def _pair_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    same(op, values)
    return (values[0],)


def _add(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op, constants
    return (inputs[0] + inputs[1],)


def _multiply(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op, constants
    return (inputs[0] * inputs[1],)


def _simple_lines(c: Call) -> list[str]:
    return [call(f"sf_{c.op.kind}", c.outputs[0], *c.inputs, *c.tables, c.sizes[0])]


def _unary_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    return (values[0],)


def _abs(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op, constants
    return (np.where(inputs[0] < 0, -inputs[0], inputs[0]),)


def _slice_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    size = values[0].size
    if not 0 <= op.start < op.stop <= size:
        raise RangeError(
            f"slice {op.outputs}",
            value=(op.start, op.stop),
            expected=f"0 <= start < stop <= {size}",
        )
    return (Value(op.stop - op.start, values[0].dtype),)


def _slice(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del constants
    return (inputs[0][:, op.start : op.stop],)


def _slice_lines(c: Call) -> list[str]:
    """A slice is a view; see `export/plan.py`."""
    del c
    return []


def _concat_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    for value in values:
        columns(op, value)
    return (Value(sum(value.size for value in values), values[0].dtype),)


def _concat(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del constants
    batch = len(inputs[0])
    parts = [part.reshape(batch, op.rows, -1) for part in inputs]
    return (np.concatenate(parts, axis=2).reshape(batch, -1),)


def _concat_lines(c: Call) -> list[str]:
    width = c.results[0] // c.op.rows
    lines, offset = [], 0
    for place, size in zip(c.inputs, c.sizes, strict=True):
        part = size // c.op.rows
        target = _moved(c.outputs[0], offset)
        if c.op.rows == 1:
            lines.append(call("sf_copy", target, place, part))
        else:
            lines.append(call("sf_copy_rows", target, place, c.op.rows, part, width))
        offset += part
    return lines


def _gather_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    strides = detail_of(op, Strides)
    if strides.ends[1] >= values[0].size:
        raise RangeError("strides", value=strides, expected=f"below {values[0].size} entries")
    return (Value(int(np.prod(strides.sizes)), values[0].dtype),)


def _gather(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del constants
    strides = detail_of(op, Strides)
    index = np.full(strides.sizes, strides.start)
    grid = np.indices(strides.sizes)
    for axis, step in enumerate(strides.steps):
        index += grid[axis] * step
    return (inputs[0][:, index.ravel()],)


def _gather_lines(c: Call) -> list[str]:
    strides = detail_of(c.op, Strides)
    missing = _MOST_AXES - len(strides.sizes)
    sizes, steps = [1] * missing + [*strides.sizes], [0] * missing + [*strides.steps]
    name = f"axes_{c.op.outputs[0]}"
    function = {"int8": "sf_gather_s8", "int16": "sf_gather_s16"}.get(c.form, "sf_gather")
    return [
        f"static const sf_axes {name} = {{{{{_list(sizes)}}}, {{{_list(steps)}}}}};",
        call(function, c.outputs[0], _moved(c.inputs[0], strides.start), f"&{name}"),
    ]


def _moved(place: str, offset: int) -> str:
    return f"{place} + {offset}" if offset else place


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _dot_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    _pair_rule(op, values, shapes)
    return (Value(1),)


def _dot(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op, constants
    return (dot(inputs[0], inputs[1])[:, None],)


def _dot_lines(c: Call) -> list[str]:
    return [f"{c.outputs[0][1:]} = sf_dot({c.inputs[0]}, {c.inputs[1]}, {c.sizes[0]});"]


def _clip_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [(values[0].size,)] * 2)
    return (values[0],)


def _clip(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    return (clip(inputs[0], constants[0], constants[1]),)


def _clip_lines(c: Call) -> list[str]:
    (line,) = _simple_lines(c)
    return [f"const int is_kept = {line}" if c.is_action else f"(void){line}"]


_NN = ("sf_nn",)

KINDS: Mapping[str, Kind] = {
    # constants mean (n), scale (n), shift (n), clip (1)
    "normalise": Kind(
        (1,), _normalise_rule, _normalise, _normalise_lines, _NN, stored=_normalise_stored
    ),
    "affine": Kind((1,), _affine_rule, _affine, _affine_lines, _NN),  # gain, shift: a row each
    "add": Kind((2,), _pair_rule, _add, _simple_lines, _NN),
    "multiply": Kind((2,), _pair_rule, _multiply, _simple_lines, _NN),
    "abs": Kind((1,), _unary_rule, _abs, _simple_lines, _NN),
    "slice": Kind((1,), _slice_rule, _slice, _slice_lines, ()),
    "concat": Kind((), _concat_rule, _concat, _concat_lines, _NN),
    "gather": Kind((1,), _gather_rule, _gather, _gather_lines, _NN),
    "dot": Kind((2,), _dot_rule, _dot, _dot_lines, _NN),
    "clip": Kind((1,), _clip_rule, _clip, _clip_lines, _NN),  # constants low (n), high (n)
}

"""Correcting an action by constraints that are values of the program, and choosing the outcome."""

from collections.abc import Mapping, Sequence

import numpy as np

from safectl.errors import RangeError
from safectl.export.arithmetic import clip
from safectl.export.kinds.kind import Call, Kind, call, detail_of, expect, expect_size
from safectl.export.ops import AnyArray, Loop, Op, Shape, Value
from safectl.export.polytope import Planes, project_polytope_box
from safectl.export.selection import (
    first_admissible,
    keep_admissible,
    rate_window,
    remember,
    retreat,
)

_Values = Sequence[Value]
_Shapes = Sequence[Shape]
_Arrays = Sequence[AnyArray]


def _polytope_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    detail_of(op, Loop)
    size, rows = values[0].size, values[2].size
    for index, expected in enumerate((size, size, rows, rows * size, rows, size, size)):
        expect_size(op, index, values[index], expected)
    return (Value(size), Value(size))


def _polytope(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del constants
    start, point, room, normals, backoff, low, high = inputs
    batch, size = start.shape
    planes = Planes(point, room, normals.reshape(batch, -1, size), backoff)
    return project_polytope_box(start, planes, low, high, detail_of(op, Loop).iterations)


def _polytope_scratch(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    del op, shapes
    size, rows = sizes[0], sizes[2]
    return (Value(size * (2 * size + 7) + (size + 2) * rows),)


def _polytope_lines(c: Call) -> list[str]:
    start, point, room, normals, backoff, low, high = c.inputs
    name = f"polytope_{c.op.outputs[0]}"
    return [
        f"const sf_polytope {name} = {{.start = {start}, .point = {point}, .room = {room},",
        f"    .normals = {normals}, .low = {low}, .high = {high}, .backoff = {backoff},",
        f"    .size = {c.sizes[0]}, .rows = {c.sizes[2]},",
        f"    .steps = {detail_of(c.op, Loop).iterations}}};",
        call("sf_project_polytope_box", *c.outputs, c.scratch[0], f"&{name}"),
    ]


def _keep_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    expect_size(op, 2, values[2], values[0].size)
    return (values[0],)


def _keep(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op, constants
    return (keep_admissible(*inputs),)


def _candidate(action: str, room: str, rows: int) -> str:
    return f"{{{action}, {room}, {rows}}}"


def _keep_lines(c: Call) -> list[str]:
    name = f"candidate_{c.op.outputs[0]}"
    return [
        f"const sf_candidate {name} = {_candidate(c.inputs[0], c.inputs[1], c.sizes[1])};",
        call("sf_keep_admissible", c.outputs[0], f"&{name}", c.inputs[2], c.sizes[0]),
    ]


def _retreat_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    size, rows = values[0].size, values[1].size
    for index, expected in enumerate((size, rows, size, rows, rows)):
        expect_size(op, index, values[index], expected)
    return (values[0],)


def _retreat(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op, constants
    return (retreat(*inputs),)


def _retreat_lines(c: Call) -> list[str]:
    names = [f"{part}_{c.op.outputs[0]}" for part in ("candidate", "reserve")]
    lines = [
        f"const sf_candidate {name} = {_candidate(c.inputs[i], c.inputs[i + 1], c.sizes[1])};"
        for name, i in zip(names, (0, 2), strict=True)
    ]
    addresses = [f"&{name}" for name in names]
    return [*lines, call("sf_retreat", c.outputs[0], *addresses, c.inputs[4], c.sizes[0])]


def _first_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    if len(values) < 4 or len(values) % 2:
        raise RangeError(
            "inputs of first_admissible", value=op.inputs, expected="two pairs or more"
        )
    size = values[0].size
    for index in range(0, len(values), 2):
        expect_size(op, index, values[index], size)
    expect(op, shapes, [(size,)] * 2)
    return (values[0], Value(1), Value(1))


def _first(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    pairs = list(zip(inputs[::2], inputs[1::2], strict=True))
    action, margin, status = first_admissible(pairs, constants[0], constants[1])
    return action, margin[:, None], status.astype(np.float32)[:, None]


def _first_lines(c: Call) -> list[str]:
    pairs = zip(c.inputs[::2], c.inputs[1::2], c.sizes[1::2], strict=True)
    table = ", ".join(_candidate(*pair) for pair in pairs)
    name, count = f"candidates_{c.op.outputs[0]}", len(c.inputs) // 2
    arguments = (*c.outputs[:2], name, count, *c.tables, c.results[0])
    return [
        f"const sf_candidate {name}[{count}] = {{{table}}};",
        f"{c.outputs[2][1:]} = (float){call('sf_first_admissible', *arguments)}",
    ]


def _window_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [(values[0].size,)] * 3)
    return (values[0], values[0])


def _window(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    return rate_window(inputs[0], *constants)


def _window_lines(c: Call) -> list[str]:
    return [call("sf_rate_window", *c.outputs, c.inputs[0], *c.tables, c.sizes[0])]


def _clamp_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    for index in (1, 2):
        expect_size(op, index, values[index], values[0].size)
    return (values[0],)


def _clamp(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op, constants
    return (clip(*inputs),)


def _clamp_lines(c: Call) -> list[str]:
    return [call("sf_clamp", c.outputs[0], *c.inputs, c.sizes[0])]


def _recall_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [])
    for index, size in enumerate((values[0].size, 1, values[0].size)):
        expect_size(op, index, values[index], size)
    return (values[0],)


def _recall(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op, constants
    return (np.where(inputs[1] > 0, inputs[0], inputs[2]),)


def _recall_lines(c: Call) -> list[str]:
    return [call("sf_recall", c.outputs[0], *c.inputs, c.sizes[0])]


def _remember_rule(op: Op, values: _Values, shapes: _Shapes) -> tuple[Value, ...]:
    expect(op, shapes, [(2,)])
    for index, size in enumerate((values[0].size, 1, values[0].size, 1)):
        expect_size(op, index, values[index], size)
    return (values[0], Value(1))


def _remember(op: Op, inputs: _Arrays, constants: _Arrays) -> tuple[AnyArray, ...]:
    del op
    action, status, held, left = inputs
    patience, cost = constants[0]
    return remember(action, status, held, left, patience, cost)


def _remember_lines(c: Call) -> list[str]:
    return [call("sf_remember", *c.outputs, *c.inputs, *c.tables, c.sizes[0])]


_SELECT = ("sf_select",)

KINDS: Mapping[str, Kind] = {
    # inputs start (n), point (n), room (m), normals (m n), backoff (m), low (n), high (n); outputs
    # the projection and the least violating corner
    "project_polytope_box": Kind(
        (7,),
        _polytope_rule,
        _polytope,
        _polytope_lines,
        ("sf_nn", "sf_polytope"),
        scratch=_polytope_scratch,
    ),
    # inputs action (n), room (m), other (n)
    "keep_admissible": Kind((3,), _keep_rule, _keep, _keep_lines, _SELECT),
    # inputs point (n), room (m), reserve (n), its room (m), backoff (m)
    "retreat": Kind((5,), _retreat_rule, _retreat, _retreat_lines, _SELECT),
    # inputs action (n), room (m), action (n), room (k), ...; constants low (n), high (n)
    "first_admissible": Kind((), _first_rule, _first, _first_lines, _SELECT),
    # input previous (n); constants step (n), low (n), high (n); outputs low and high
    "rate_window": Kind((1,), _window_rule, _window, _window_lines, _SELECT),
    # inputs held action (n), repetitions left (1), other action (n)
    "recall": Kind((3,), _recall_rule, _recall, _recall_lines, _SELECT),
    # inputs action (n), status (1), held action (n), repetitions left (1); constant patience and
    # what a repetition costs of it (2)
    "remember": Kind((4,), _remember_rule, _remember, _remember_lines, _SELECT),
    # inputs value (n), low (n), high (n)
    "clamp": Kind((3,), _clamp_rule, _clamp, _clamp_lines, _SELECT),
}

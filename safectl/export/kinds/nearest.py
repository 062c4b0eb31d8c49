"""The nearest admissible of several actions as an operation."""

from collections.abc import Mapping, Sequence

import numpy as np

from safectl.export.kinds.kind import Call, Kind, call, columns, expect, expect_size
from safectl.export.nearest import nearest_admissible
from safectl.export.ops import AnyArray, Op, Shape, Value


def _rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    size = values[0].size
    expect_size(op, 1, values[1], (op.rows - 1) * size)
    columns(Op(op.kind, op.inputs[2:], op.outputs, rows=op.rows), values[2])
    expect(op, shapes, [(size,)] * 2)
    return (Value(size), Value(1), Value(1))


def _meaning(
    op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]
) -> tuple[AnyArray, ...]:
    proposal, points, room = inputs
    batch, size = proposal.shape
    action, margin, status = nearest_admissible(
        proposal,
        points.reshape(batch, op.rows - 1, size),
        room.reshape(batch, op.rows, -1),
        *constants,
    )
    return action, margin[:, None], status.astype(np.float32)[:, None]


def _lines(c: Call) -> list[str]:
    name = f"choices_{c.op.outputs[0]}"
    arguments = (*c.outputs[:2], f"&{name}", *c.tables)
    return [
        f"const sf_choices {name} = {{.proposal = {c.inputs[0]}, .points = {c.inputs[1]},",
        f"    .room = {c.inputs[2]}, .count = {c.op.rows}, .rows = {c.sizes[2] // c.op.rows},",
        f"    .size = {c.results[0]}}};",
        f"{c.outputs[2][1:]} = (float){call('sf_nearest_admissible', *arguments)}",
    ]


KINDS: Mapping[str, Kind] = {
    # inputs proposal (n), points ((rows - 1) n), room (rows m); constants low (n), high (n)
    "nearest_admissible": Kind((3,), _rule, _meaning, _lines, ("sf_nearest",)),
}

"""The exact projection on one half-space and a box as an operation."""

from collections.abc import Mapping, Sequence

import numpy as np

from safectl.export.kinds.kind import Call, Kind, expect, expect_size
from safectl.export.ops import AnyArray, Op, Shape, Value
from safectl.export.project import HalfSpace, project_halfspace_box


def _rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    size = values[0].size
    for index, wanted in enumerate((size, size, 1, 1)):
        expect_size(op, index, values[index], wanted)
    expect(op, shapes, [(size,)] * 2)
    return (Value(size), Value(1), Value(1))


def _meaning(
    op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]
) -> tuple[AnyArray, ...]:
    del op
    action, margin, status = project_halfspace_box(
        inputs[0], HalfSpace(inputs[1], inputs[2][:, 0], inputs[3][:, 0]), *constants
    )
    return action, margin[:, None], status.astype(np.float32)[:, None]


def _lines(call: Call) -> list[str]:
    region = f"region_{call.op.outputs[0]}"
    arguments = [call.outputs[0], call.outputs[1], call.inputs[0], f"&{region}"]
    return [
        f"const sf_region {region} = {{.normal = {call.inputs[1]}, .low = {call.tables[0]},",
        f"    .high = {call.tables[1]}, .offset = {call.inputs[2][1:]},",
        f"    .backoff = {call.inputs[3][1:]}, .size = {call.sizes[0]}}};",
        f"{call.outputs[2][1:]} = (float)sf_project_halfspace_box({', '.join(arguments)});",
    ]


KINDS: Mapping[str, Kind] = {
    # inputs proposal (n), normal (n), offset (1), backoff (1); constants low (n), high (n)
    "project_halfspace_box": Kind((4,), _rule, _meaning, _lines, ("sf_nn", "sf_project")),
}

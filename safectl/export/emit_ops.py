"""Each operation of a program as one line of C, and each constant as one table."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safectl.export.literals import float_literal
from safectl.export.ops import Op
from safectl.export.plan import BufferPlan, plan_buffers
from safectl.export.program import ACTION, FAIL_SAFE, Array, Program

BLOCK_WIDTHS = (4, 2, 1)
"""Outputs that one pass of `sf_dense` computes side by side, widest first."""

_LITERALS_PER_LINE = 6


@dataclass(frozen=True, slots=True)
class Emitted:
    """The parts of the C text that depend on the operations.

    Attributes:
        plan: Where the values live.
        places: C expression of the address of every value.
        fields: Members of the table struct.
        values: Their initialisers.
        steps: One statement per operation.
        blob: The table struct as it lies in memory on a little-endian machine.
    """

    plan: BufferPlan
    places: Mapping[str, str]
    fields: tuple[str, ...]
    values: tuple[str, ...]
    steps: tuple[str, ...]
    blob: bytes


def emit_ops(program: Program) -> Emitted:
    """Write the operations and constants of a program as C."""
    plan = plan_buffers(program)
    places = {
        name: f"&observation[{offset}]" if name in plan.in_observation else f"&m[{offset}]"
        for name, offset in plan.offsets.items()
    }
    tables = _tables(program)
    steps = tuple(line for op in program.ops for line in _lines(op, places, program))
    return Emitted(
        plan=plan,
        places=places,
        fields=tuple(f"    float c_{name}[{array.size}];" for name, array in tables.items()),
        values=tuple(_initialiser(name, array) for name, array in tables.items()),
        steps=steps,
        blob=b"".join(array.astype("<f4").tobytes() for array in tables.values()),
    )


def block_weights(weight: Array) -> Array:
    """Order an (out, in) matrix as `sf_dense` reads it: blocks of rows, transposed; shape (n,)."""
    parts, row = [], 0
    for width in BLOCK_WIDTHS:
        while row + width <= len(weight):
            parts.append(weight[row : row + width].T.ravel())
            row += width
    return np.concatenate(parts)


def _tables(program: Program) -> dict[str, Array]:
    """Return what is stored for each constant, in the order in which the step reads it."""
    tables: dict[str, Array] = {}
    for op in program.ops:
        stored = op.constants[:3] if op.kind == "normalise" else op.constants
        for index, name in enumerate(stored):
            array = program.constants[name]
            is_weight = op.kind == "dense" and index == 0
            tables[name] = block_weights(array) if is_weight else array
    return {**tables, FAIL_SAFE: program.constants[FAIL_SAFE]}


def _initialiser(name: str, array: Array) -> str:
    texts = [float_literal(value) for value in array]
    rows = [
        ", ".join(texts[start : start + _LITERALS_PER_LINE])
        for start in range(0, len(texts), _LITERALS_PER_LINE)
    ]
    body = ",\n        ".join(rows)
    return f"    .c_{name} = {{\n        {body}}},"


def _lines(op: Op, places: Mapping[str, str], program: Program) -> list[str]:
    """Return the statements of one operation."""
    inputs = [places[name] for name in op.inputs]
    outputs = [places[name] for name in op.outputs]
    tables = [f"tables.c_{name}" for name in op.constants]
    sizes = program.sizes
    size = sizes[op.outputs[0]]
    match op.kind:
        case "slice":
            return []
        case "concat":
            return _concat(outputs[0], [(places[name], sizes[name]) for name in op.inputs])
        case "dense":
            counts = f"{sizes[op.inputs[0]]}, {size}"
            lines = [f"sf_dense({outputs[0]}, {inputs[0]}, {tables[0]}, {tables[1]}, {counts});"]
            if op.activation != "none":
                lines.append(f"sf_{op.activation}({outputs[0]}, {size});")
            return lines
        case "dot":
            return [f"{outputs[0][1:]} = sf_dot({inputs[0]}, {inputs[1]}, {sizes[op.inputs[0]]});"]
        case "normalise":
            limit = float_literal(program.constants[op.constants[3]][0])
            arguments = [outputs[0], inputs[0], *tables[:3], limit, str(size)]
            return [f"sf_normalise({', '.join(arguments)});"]
        case "project_halfspace_box":
            region = f"region_{op.outputs[0]}"
            arguments = [outputs[0], outputs[1], inputs[0], f"&{region}"]
            call = f"sf_project_halfspace_box({', '.join(arguments)})"
            return [
                f"const sf_region {region} = {{.normal = {inputs[1]}, .low = {tables[0]},",
                f"    .high = {tables[1]}, .offset = {inputs[2][1:]},",
                f"    .backoff = {inputs[3][1:]}, .size = {size}}};",
                f"{outputs[2][1:]} = (float){call};",
            ]
        case _:  # affine, abs, add, clip: output, inputs, tables, size
            call = f"sf_{op.kind}({', '.join([outputs[0], *inputs, *tables, str(size)])})"
            if op.kind != "clip":
                return [f"{call};"]
            return [f"const int is_kept = {call};" if ACTION in op.outputs else f"(void){call};"]


def _concat(output: str, parts: list[tuple[str, int]]) -> list[str]:
    lines, offset = [], 0
    for place, size in parts:
        lines.append(f"sf_copy({output} + {offset}, {place}, {size});")
        offset += size
    return lines

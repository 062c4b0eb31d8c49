"""Each operation of a program as lines of C, and each constant as one table."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safectl.errors import RangeError
from safectl.export.kinds import KINDS, Call
from safectl.export.literals import literal
from safectl.export.ops import AnyArray, Op
from safectl.export.plan import BufferPlan, plan_buffers
from safectl.export.program import ACTION, FAIL_SAFE, OBSERVATION, Program, little_endian

C_TYPES = {"float32": "float", "int32": "int32_t", "int16": "int16_t", "int8": "int8_t"}
"""Widest first: the order of the tables and arenas, which therefore need no padding between."""
ARENAS = {"float32": "m", "int32": "m32", "int16": "m16", "int8": "m8"}
"""Name in the step function of the arena of each number format."""

_ENTRIES_PER_LINE = {"float32": 6, "int32": 8, "int16": 12, "int8": 20}
_WORD = 4  # bytes: the alignment of the table struct


@dataclass(frozen=True, slots=True)
class Emitted:
    """The parts of the C text that depend on the operations.

    Attributes:
        plan: Where the values live.
        places: C expression of the address of every value.
        fields: Members of the table struct.
        values: Their initialisers.
        steps: Statements of all operations.
        blob: The table struct as it lies in memory on a little-endian machine.
    """

    plan: BufferPlan
    places: Mapping[str, str]
    fields: tuple[str, ...]
    values: tuple[str, ...]
    steps: tuple[str, ...]
    blob: bytes

    @property
    def state_bytes(self) -> int:
        """Size of the state struct: two counters, the states and the arenas."""
        arenas = sum(np.dtype(name).itemsize * size for name, size in self.plan.arenas.items())
        return -(-(8 + 4 * self.plan.states + arenas) // _WORD) * _WORD


def emit_ops(program: Program) -> Emitted:
    """Write the operations and constants of a program as C.

    Raises:
        RangeError: If two operations need the same constant in different layouts.
    """
    plan = plan_buffers(program)
    places = {name: _place(plan.owners[name], at) for name, at in plan.offsets.items()}
    tables = _tables(program)
    steps = tuple(line for op in program.ops for line in _lines(op, plan, places, program))
    return Emitted(
        plan=plan,
        places=places,
        fields=tuple(
            f"    {C_TYPES[array.dtype.name]} c_{name}[{array.size}];"
            for name, array in tables.items()
        ),
        values=tuple(_initialiser(name, array) for name, array in tables.items()),
        steps=steps,
        blob=b"".join(little_endian(array) for array in tables.values()),
    )


def _place(owner: str, offset: int) -> str:
    if owner in (OBSERVATION, "states"):
        return f"&observation[{offset}]" if owner == OBSERVATION else f"&state->states[{offset}]"
    return f"&{ARENAS[owner]}[{offset}]"


def _tables(program: Program) -> dict[str, AnyArray]:
    """Return what is stored for each constant: widest format first, else as the step reads it."""
    tables: dict[str, AnyArray] = {}
    for op in program.ops:
        constants = [program.constants[name] for name in op.constants]
        stored = KINDS[op.kind].stored(op, constants)
        for name, array in zip(op.constants, stored, strict=True):
            if array is not None and not np.array_equal(tables.setdefault(name, array), array):
                raise RangeError("constant", value=name, expected="one layout in all operations")
    for name in (*(state.initial for state in program.states.values()), FAIL_SAFE):
        tables.setdefault(name, program.constants[name])
    order = list(C_TYPES)
    sorted_tables = dict(sorted(tables.items(), key=lambda item: order.index(item[1].dtype.name)))
    rest = -sum(array.nbytes for array in tables.values()) % _WORD
    if rest:  # the last table fills the struct, which then has no byte that the CRC does not know
        name, array = next(reversed(sorted_tables.items()))
        sorted_tables[name] = np.pad(array.ravel(), (0, rest // array.itemsize))
    return sorted_tables


def _initialiser(name: str, array: AnyArray) -> str:
    texts = [literal(value) for value in array.ravel()]
    width = _ENTRIES_PER_LINE[array.dtype.name]
    rows = [", ".join(texts[start : start + width]) for start in range(0, len(texts), width)]
    body = ",\n        ".join(rows)
    return f"    .c_{name} = {{\n        {body}}},"


def _lines(op: Op, plan: BufferPlan, places: Mapping[str, str], program: Program) -> list[str]:
    """Return the statements of one operation."""
    values = program.values
    call = Call(
        op=op,
        inputs=tuple(places[name] for name in op.inputs),
        outputs=tuple(places[name] for name in op.outputs),
        tables=tuple(f"tables.c_{name}" for name in op.constants),
        sizes=tuple(values[name].size for name in op.inputs),
        results=tuple(values[name].size for name in op.outputs),
        constants=tuple(program.constants[name] for name in op.constants),
        scratch=tuple(_place(owner, at) for owner, at in plan.scratch[op.outputs[0]]),
        form=values[op.inputs[0]].dtype,
        is_action=ACTION in op.outputs,
    )
    return [*_finite_lines(call), *KINDS[op.kind].lines(call)]


def _finite_lines(call: Call) -> list[str]:
    """Fall back before an operation hides what is not finite; the observation has been tested."""
    if not KINDS[call.op.kind].hides or call.inputs[0].startswith("&observation"):
        return []
    condition = f"!sf_all_finite({call.inputs[0]}, {call.sizes[0]})"
    return [f"if ({condition}) {{", "    return fail_safe(state, action, certificate);", "}"]

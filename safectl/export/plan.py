"""Where each value of a program lives: offsets found by first fit, one arena per number format.

States live apart from the arena, because they outlive the step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from safectl.export.kinds import KINDS
from safectl.export.ops import NUMBER_FORMATS, Value
from safectl.export.program import ACTION, MARGIN, OBSERVATION, STATUS, Program

_WORD = {"float32": 1, "int8": 4, "int16": 2, "int32": 1}
"""Integer values start at whole words."""
_SLACK = {"float32": 0, "int8": 4, "int16": 4, "int32": 0}
"""Integer kernels read fours, past the end of a value, and multiply what lies there by zero."""


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """Offsets in entries of the number format.

    Attributes:
        offsets: Offset of every value in its owner: the caller's observation, the states or the
            arena of its number format.
        owners: Per value "observation", "states" or its number format.
        scratch: Number format and offset of each working memory, by the first output of the
            operation that asks for it.
        arenas: Entries of the arena per number format that has one.
        states: Floats of all states.
    """

    offsets: Mapping[str, int]
    owners: Mapping[str, str]
    scratch: Mapping[str, tuple[tuple[str, int], ...]]
    arenas: Mapping[str, int]
    states: int

    @property
    def in_observation(self) -> frozenset[str]:
        """Values that are slices of the observation, and the observation itself."""
        return frozenset(name for name, owner in self.owners.items() if owner == OBSERVATION)

    @property
    def size(self) -> int:
        """Floats in the arena."""
        return self.arenas.get("float32", 0)


def plan_buffers(program: Program) -> BufferPlan:
    """Place every value so that no two that are alive together overlap.

    A slice is a view of its source and needs no room. Outputs of the program and the states that
    follow live to the end.
    """
    values = dict(program.values)
    roots, starts = _views(program)
    needs = {name: value for name, value in values.items() if roots[name] == name}
    scratch = _scratch(program)
    needs.update(scratch)
    last_use = _last_uses(program, roots)
    placed = {OBSERVATION: 0}
    owners = {OBSERVATION: OBSERVATION} | dict.fromkeys(program.states, "states")
    states = 0
    for name in program.states:
        placed[name] = states
        states += values[name].size
    arenas = dict.fromkeys(NUMBER_FORMATS, 0)
    for index, op in enumerate(program.ops):
        own = [name for name in scratch if name.endswith(f" of {op.outputs[0]}")]
        last_use.update(dict.fromkeys(own, index))
        for name in (*op.outputs, *own):
            if name not in needs:
                continue
            size, dtype = _rounded(needs[name]), needs[name].dtype
            alive = sorted(
                (placed[other], placed[other] + _rounded(needs[other]))
                for other in placed
                if owners[other] == dtype and last_use[other] >= index
            )
            placed[name], owners[name] = _first_gap(alive, size), dtype
            arenas[dtype] = max(arenas[dtype], placed[name] + size)
    return BufferPlan(
        offsets={name: placed[roots[name]] + starts[name] for name in values},
        owners={name: owners[roots[name]] for name in values},
        scratch={
            op.outputs[0]: tuple(
                (owners[name], placed[name])
                for name in scratch
                if name.endswith(f" of {op.outputs[0]}")
            )
            for op in program.ops
        },
        arenas={dtype: size + _SLACK[dtype] for dtype, size in arenas.items() if size},
        states=states,
    )


def _first_gap(alive: list[tuple[int, int]], size: int) -> int:
    offset = 0
    for begin, end in alive:
        if offset + size <= begin:
            break
        offset = max(offset, end)
    return offset


def _rounded(value: Value) -> int:
    word = _WORD[value.dtype]
    return -(-value.size // word) * word


def _views(program: Program) -> tuple[dict[str, str], dict[str, int]]:
    """Return, per value, the value that owns its memory and its offset within it."""
    roots = {name: name for name in (OBSERVATION, *program.states)}
    starts = dict.fromkeys(roots, 0)
    for op in program.ops:
        for name in op.outputs:
            is_view = op.kind == "slice"
            roots[name] = roots[op.inputs[0]] if is_view else name
            starts[name] = starts[op.inputs[0]] + op.start if is_view else 0
    return roots, starts


def _scratch(program: Program) -> dict[str, Value]:
    """Return the working memory that operations ask for, as values that live for one operation."""
    shapes = {name: array.shape for name, array in program.constants.items()}
    sizes, needs = program.sizes, {}
    for op in program.ops:
        inputs = [sizes[name] for name in op.inputs]
        asked = KINDS[op.kind].scratch(op, inputs, [shapes[name] for name in op.constants])
        needs.update({f"scratch {i} of {op.outputs[0]}": value for i, value in enumerate(asked)})
    return needs


def _last_uses(program: Program, roots: Mapping[str, str]) -> dict[str, int]:
    last: dict[str, int] = {}
    for index, op in enumerate(program.ops):
        for name in (*op.inputs, *op.outputs):
            last[roots[name]] = index
    for name in (ACTION, MARGIN, STATUS, *(state.following for state in program.states.values())):
        if name in roots:
            last[roots[name]] = len(program.ops)
    return last

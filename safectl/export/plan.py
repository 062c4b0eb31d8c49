"""Where each value of a program lives in one float arena: offsets found by first fit."""

from collections.abc import Mapping
from dataclasses import dataclass

from safectl.export.ops import Op
from safectl.export.program import ACTION, MARGIN, OBSERVATION, STATUS, Program


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """Offsets in the arena, in floats.

    Attributes:
        offsets: Offset of every value; those of the observation refer to the caller's array.
        in_observation: Values that are slices of the observation, and the observation itself.
        size: Floats in the arena.
    """

    offsets: Mapping[str, int]
    in_observation: frozenset[str]
    size: int


def plan_buffers(program: Program) -> BufferPlan:
    """Place every value so that no two that are alive together overlap.

    A slice is a view of its source and needs no room. Outputs of the program live to the end.
    """
    sizes = program.sizes
    roots, starts = _views(program.ops)
    last_use = _last_uses(program.ops, roots)
    placed: dict[str, int] = {}
    size = 0
    for index, op in enumerate(program.ops):
        for name in op.outputs:
            if roots[name] != name:
                continue
            alive = sorted(
                (placed[other], placed[other] + sizes[other])
                for other in placed
                if last_use[other] >= index
            )
            offset = 0
            for begin, end in alive:
                if offset + sizes[name] <= begin:
                    break
                offset = max(offset, end)
            placed[name] = offset
            size = max(size, offset + sizes[name])
    placed[OBSERVATION] = 0
    offsets = {name: placed[roots[name]] + starts[name] for name in sizes}
    views = frozenset(name for name in sizes if roots[name] == OBSERVATION)
    return BufferPlan(offsets, views, size)


def _views(ops: tuple[Op, ...]) -> tuple[dict[str, str], dict[str, int]]:
    """Return, per value, the value that owns its memory and its offset within it."""
    roots, starts = {OBSERVATION: OBSERVATION}, {OBSERVATION: 0}
    for op in ops:
        for name in op.outputs:
            is_view = op.kind == "slice"
            roots[name] = roots[op.inputs[0]] if is_view else name
            starts[name] = starts[op.inputs[0]] + op.start if is_view else 0
    return roots, starts


def _last_uses(ops: tuple[Op, ...], roots: Mapping[str, str]) -> dict[str, int]:
    last: dict[str, int] = {}
    for index, op in enumerate(ops):
        for name in (*op.inputs, *op.outputs):
            last[roots[name]] = index
    for name in (ACTION, MARGIN, STATUS):
        if name in roots:
            last[roots[name]] = len(ops)
    return last

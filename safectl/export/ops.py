"""The operations a `Program` may hold, and the sizes that each one accepts and produces.

Every value is a float32 vector. The meaning of an operation is written twice, in
`export/interpret.py` and in `export/runtime/*.c`, with the same order of roundings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from safectl.errors import RangeError, ShapeError, UnknownNameError

ACTIVATIONS = ("none", "relu", "tanh")


@dataclass(frozen=True, slots=True)
class Op:
    """One operation in single-assignment form.

    Attributes:
        kind: A key of `KINDS`.
        inputs: Names of the values it reads.
        outputs: Names of the values it defines.
        constants: Names of the constants it reads, in the order of `KINDS`.
        activation: For `dense`: what is applied to every output.
        start: For `slice`: first entry.
        stop: For `slice`: one past the last entry.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: tuple[str, ...] = ()
    activation: str = "none"
    start: int = 0
    stop: int = 0


Shape = tuple[int, ...]
_Rule = Callable[[Op, Sequence[int], Sequence[Shape]], tuple[int, ...]]


def output_sizes(op: Op, values: Mapping[str, int], constants: Mapping[str, Shape]) -> Shape:
    """Check one operation against the values and constants it names and size its outputs.

    Args:
        op: The operation.
        values: Size of every value defined before it.
        constants: Shape of every constant.

    Returns:
        The size of each output, in order.

    Raises:
        UnknownNameError: If the kind, an input, a constant or the activation is not known.
        RangeError: If the number of inputs, outputs or constants is wrong, or a slice is.
        ShapeError: If a size does not fit.
    """
    if op.kind not in KINDS:
        raise UnknownNameError("operation", op.kind, known=sorted(KINDS))
    if op.activation not in ACTIVATIONS:
        raise UnknownNameError("activation", op.activation, known=ACTIVATIONS)
    for name in op.inputs:
        if name not in values:
            raise UnknownNameError(f"input of {op.kind}", name, known=sorted(values))
    for name in op.constants:
        if name not in constants:
            raise UnknownNameError(f"constant of {op.kind}", name, known=sorted(constants))
    inputs, rule = KINDS[op.kind]
    if (inputs is None and not op.inputs) or (inputs is not None and len(op.inputs) != inputs):
        raise RangeError(
            f"inputs of {op.kind}", value=op.inputs, expected=f"{inputs or 'one or more'} names"
        )
    shapes = [constants[name] for name in op.constants]
    sizes = rule(op, [values[name] for name in op.inputs], shapes)
    if len(op.outputs) != len(sizes):
        raise RangeError(f"outputs of {op.kind}", value=op.outputs, expected=f"{len(sizes)} names")
    return sizes


def _expect(op: Op, got: Sequence[Shape], expected: Sequence[Shape]) -> None:
    if len(got) != len(expected):
        raise RangeError(
            f"constants of {op.kind} {op.outputs}",
            value=op.constants,
            expected=f"{len(expected)} names",
        )
    for name, shape, wanted in zip(op.constants, got, expected, strict=True):
        if shape != wanted:
            raise ShapeError(f"constant {name}", expected=wanted, got=shape)


def _same(op: Op, sizes: Sequence[int]) -> int:
    for name, size in zip(op.inputs, sizes, strict=True):
        if size != sizes[0]:
            raise ShapeError(f"value {name}", expected=(sizes[0],), got=(size,))
    return sizes[0]


def _normalise(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> Shape:
    _expect(op, shapes, [(sizes[0],)] * 3 + [(1,)])
    return (sizes[0],)


def _dense(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> Shape:
    rows = shapes[0][0] if shapes and shapes[0] else 0
    if not rows:
        raise RangeError("outputs of dense", value=op.constants, expected="a weight of (out, in)")
    _expect(op, shapes, [(rows, sizes[0]), (rows,)])
    return (rows,)


def _elementwise(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> Shape:
    _expect(op, shapes, [(sizes[0],)] * 2)
    return (sizes[0],)


def _add(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> Shape:
    _expect(op, shapes, [])
    return (_same(op, sizes),)


def _unary(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> Shape:
    _expect(op, shapes, [])
    return (sizes[0],)


def _slice(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> Shape:
    _expect(op, shapes, [])
    if not 0 <= op.start < op.stop <= sizes[0]:
        raise RangeError(
            f"slice {op.outputs}",
            value=(op.start, op.stop),
            expected=f"0 <= start < stop <= {sizes[0]}",
        )
    return (op.stop - op.start,)


def _concat(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> Shape:
    _expect(op, shapes, [])
    return (sum(sizes),)


def _dot(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> Shape:
    _expect(op, shapes, [])
    _same(op, sizes)
    return (1,)


def _project(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> Shape:
    if sizes[1] != sizes[0]:
        raise ShapeError(f"value {op.inputs[1]}", expected=(sizes[0],), got=(sizes[1],))
    for name, size in zip(op.inputs[2:], sizes[2:], strict=True):
        if size != 1:
            raise ShapeError(f"value {name}", expected=(1,), got=(size,))
    _expect(op, shapes, [(sizes[0],)] * 2)
    return (sizes[0], 1, 1)


KINDS: Mapping[str, tuple[int | None, _Rule]] = {
    # Number of inputs (None: one or more), rule. Formulas: see `export/interpret.py`.
    "normalise": (1, _normalise),  # constants mean (n), scale (n), shift (n), clip (1)
    "dense": (1, _dense),  # constants weight (out, in), bias (out)
    "affine": (1, _elementwise),  # constants gain (n), shift (n)
    "add": (2, _add),
    "abs": (1, _unary),
    "slice": (1, _slice),
    "concat": (None, _concat),
    "dot": (2, _dot),
    "clip": (1, _elementwise),  # constants low (n), high (n)
    # inputs proposal (n), normal (n), offset (1), backoff (1); constants low (n), high (n)
    "project_halfspace_box": (4, _project),
}

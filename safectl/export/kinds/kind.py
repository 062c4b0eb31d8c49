"""What a kind of operation consists of: sizes, meaning in NumPy, text in C."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from safectl.errors import RangeError, ShapeError
from safectl.export.ops import AnyArray, Op, Shape, Value

Rule = Callable[[Op, Sequence[Value], Sequence[Shape]], tuple[Value, ...]]
Meaning = Callable[[Op, Sequence[AnyArray], Sequence[AnyArray]], tuple[AnyArray, ...]]
_Detail = TypeVar("_Detail")


@dataclass(frozen=True, slots=True)
class Call:
    """What the C text of one operation is made from.

    Attributes:
        op: The operation.
        inputs: C expressions of the addresses it reads.
        outputs: C expressions of the addresses it writes.
        tables: C expressions of its constant tables.
        sizes: Entries of each input.
        results: Entries of each output.
        constants: The constants themselves.
        scratch: Addresses of the working memory that its kind asks for.
        form: Number format of the first input.
        is_action: Whether the first output is the action of the program.
    """

    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tables: tuple[str, ...]
    sizes: tuple[int, ...]
    results: tuple[int, ...]
    constants: tuple[AnyArray, ...]
    scratch: tuple[str, ...]
    form: str
    is_action: bool


def _as_they_are(op: Op, constants: Sequence[AnyArray]) -> Sequence[AnyArray | None]:
    del op
    return constants


def _none(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    del op, sizes, shapes
    return ()


def _nothing(op: Op, shapes: Sequence[Shape]) -> int:
    del op, shapes
    return 0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of operation.

    Attributes:
        inputs: Numbers of inputs it accepts; empty for one or more.
        rule: Checks the operation and sizes its outputs.
        meaning: Arrays in, arrays out, (batch, size) each: the same operations in the same order of
            roundings as the C.
        lines: Statements in C.
        runtime: Stems of the runtime files that the statements need.
        stored: How each constant lies in flash; None for one that the statements hold.
        scratch: Working memory, from the sizes of the inputs and the shapes of the constants.
        multiply_adds: Products with weights in one step, from the shapes of the constants.
        hides: Whether NaN or infinity would leave it as a number like any other. A program falls
            back where such an input is not finite.
    """

    inputs: tuple[int, ...]
    rule: Rule
    meaning: Meaning
    lines: Callable[[Call], list[str]]
    runtime: tuple[str, ...]
    stored: Callable[[Op, Sequence[AnyArray]], Sequence[AnyArray | None]] = _as_they_are
    scratch: Callable[[Op, Sequence[int], Sequence[Shape]], tuple[Value, ...]] = _none
    multiply_adds: Callable[[Op, Sequence[Shape]], int] = _nothing
    hides: bool = False


def expect(op: Op, got: Sequence[Shape], expected: Sequence[Shape]) -> None:
    """Refuse constants that are not of these shapes.

    Raises:
        RangeError: If their number is wrong.
        ShapeError: If a shape is.
    """
    if len(got) != len(expected):
        raise RangeError(
            f"constants of {op.kind} {op.outputs}",
            value=op.constants,
            expected=f"{len(expected)} names",
        )
    for name, shape, wanted in zip(op.constants, got, expected, strict=True):
        if shape != wanted:
            raise ShapeError(f"constant {name}", expected=wanted, got=shape)


def expect_size(op: Op, index: int, value: Value, size: int) -> None:
    """Refuse an input of another size.

    Raises:
        ShapeError: With the name of the input.
    """
    if value.size != size:
        raise ShapeError(f"value {op.inputs[index]}", expected=(size,), got=(value.size,))


def same(op: Op, values: Sequence[Value]) -> int:
    """Return the size that all inputs share.

    Raises:
        ShapeError: If they do not share one.
    """
    for index, value in enumerate(values):
        expect_size(op, index, value, values[0].size)
    return values[0].size


def columns(op: Op, value: Value) -> int:
    """Return the entries per row.

    Raises:
        ShapeError: If the rows do not divide the input.
    """
    if op.rows < 1 or value.size % op.rows:
        raise ShapeError(
            f"value {op.inputs[0]}", expected=(f"a multiple of {op.rows} rows",), got=(value.size,)
        )
    return value.size // op.rows


def detail_of(op: Op, kind: type[_Detail]) -> _Detail:
    """Return the attributes of an operation that needs them.

    Raises:
        RangeError: If they are missing or of another kind.
    """
    if not isinstance(op.detail, kind):
        raise RangeError(f"detail of {op.kind}", value=op.detail, expected=f"a {kind.__name__}")
    return op.detail


def call(function: str, *arguments: object) -> str:
    """Write one call as a statement."""
    return f"{function}({', '.join(str(argument) for argument in arguments)});"


def indent(lines: Sequence[str]) -> list[str]:
    """Indent the statements of a block."""
    return [f"    {line}" for line in lines]

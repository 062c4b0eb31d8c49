"""A controller as a small static graph with three meanings that agree: torch, NumPy and C.

The value `observation` enters; `action` leaves, and optionally `margin` and `status`. The operation
that defines `action` ends in the limits of the specification, so no program can exceed them, and
`margin` and `status` are what `project_halfspace_box` finds at this very action, or are absent.
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from safectl.errors import NonFiniteError, RangeError, ShapeError, UnknownNameError
from safectl.export.ops import Op, output_sizes
from safectl.spec import Spec

Array = npt.NDArray[np.float32]

OBSERVATION, ACTION, MARGIN, STATUS, FAIL_SAFE = (
    "observation",
    "action",
    "margin",
    "status",
    "fail_safe",
)
FLOAT32_MAX = float(np.finfo(np.float32).max)
"""Stands for infinity where a program needs a finite number."""
MARGIN_NONE = FLOAT32_MAX
"""Margin of a program without constraints: the smallest of no values, kept finite for the wire."""
MARGIN_UNKNOWN = -MARGIN_NONE
"""Margin of the fail-safe action: nothing is known about it."""

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,47}")  # C99 tells 63 characters apart; we add a prefix
_LIMITED = ("clip", "project_halfspace_box")


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A controller with static shapes, no control flow but fixed loops, and no heap.

    Attributes:
        name: Lower-case C identifier.
        spec: Signals that enter and leave.
        ops: Operations in order; each names its inputs and outputs.
        constants: Finite float32 arrays. `fail_safe`, shape (nu,), is the action for a non-finite
            observation.

    Raises:
        RangeError: If a name is no identifier, a value is defined twice, a constant is unused,
            `action` can leave the limits, or `margin` and `status` are not those of the projection
            that defines `action`.
        ShapeError: If sizes do not fit.
        UnknownNameError: If an operation names something that does not exist.
        NonFiniteError: If a constant is not finite in float32.
    """

    name: str
    spec: Spec
    ops: tuple[Op, ...]
    constants: Mapping[str, Array]

    def __post_init__(self) -> None:
        object.__setattr__(self, "constants", _freeze(self.constants))
        _check_names((self.name, *self.constants))
        sizes = self.sizes
        _check_size(sizes, ACTION, self.spec.nu)
        _check_evidence(self.ops)
        _check_constants(self)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size of every value, `observation` first."""
        shapes = {name: array.shape for name, array in self.constants.items()}
        sizes = {OBSERVATION: self.spec.nx}
        for op in self.ops:
            for name, size in zip(op.outputs, output_sizes(op, sizes, shapes), strict=True):
                if name in sizes:
                    raise RangeError("value", value=name, expected="a name not defined before")
                sizes[name] = size
        return sizes

    @property
    def unlimited_action(self) -> str:
        """Name of the value that becomes `action` by the limits or the projection."""
        return next(op.inputs[0] for op in self.ops if ACTION in op.outputs)

    def weights_crc32(self) -> int:
        """Condense the constants, in the order of their names, to 32 bits."""
        crc = 0
        for name in sorted(self.constants):
            crc = zlib.crc32(self.constants[name].astype("<f4").tobytes(), crc)
        return crc

    def digest(self) -> int:
        """Condense name, specification, operations and constants to 32 bits."""
        text = f"{self.name}{self.spec.to_json()}{self.ops}"
        return zlib.crc32(text.encode(), self.weights_crc32())

    def multiply_adds(self) -> int:
        """Multiply-accumulate operations of all dense layers in one step."""
        return sum(self.constants[op.constants[0]].size for op in self.ops if op.kind == "dense")


@runtime_checkable
class Exportable(Protocol):
    """Anything that can become a program."""

    def program(self) -> Program:
        """Return the program of this object."""
        ...


def action_limits(spec: Spec) -> tuple[Array, Array]:
    """Return the action limits in float32, low and high, each of shape (nu,)."""
    low = np.array(spec.action_low, np.float32)
    return low, np.array(spec.action_high, np.float32)


def _freeze(constants: Mapping[str, Array]) -> Mapping[str, Array]:
    frozen = {}
    for name in sorted(constants):
        with np.errstate(over="ignore"):  # an overflow is reported below, by name
            array = np.array(constants[name], dtype=np.float32, order="C")
        if not np.isfinite(array).all():
            raise NonFiniteError(
                f"constant {name}",
                count=int((~np.isfinite(array)).sum()),
                size=array.size,
                advice="a program with such a weight must not be deployed",
            )
        array.flags.writeable = False
        frozen[name] = array
    return MappingProxyType(frozen)


def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        if not _IDENTIFIER.fullmatch(name):
            raise RangeError(
                "name", value=name, expected="lower-case letters, digits and _, at most 48"
            )


def _check_size(sizes: Mapping[str, int], name: str, size: int) -> None:
    if name not in sizes:
        raise UnknownNameError("output of the program", name, known=sorted(sizes))
    if sizes[name] != size:
        raise ShapeError(f"value {name}", expected=(size,), got=(sizes[name],))


def _check_evidence(ops: tuple[Op, ...]) -> None:
    """Refuse a margin or status that says nothing about the action that leaves."""
    for op in ops:
        if not {MARGIN, STATUS} & set(op.outputs):
            continue
        if op.kind != "project_halfspace_box" or op.outputs != (ACTION, MARGIN, STATUS):
            raise RangeError(
                "margin and status",
                value=(op.kind, op.outputs),
                expected="those of the project_halfspace_box that defines the action",
            )


def _check_constants(program: Program) -> None:
    used = {name for op in program.ops for name in op.constants} | {FAIL_SAFE}
    if used != set(program.constants):
        unused = sorted(used ^ set(program.constants))
        raise RangeError("constants", value=unused, expected="each used, and a fail_safe action")
    low, high = action_limits(program.spec)
    last = next(op for op in program.ops if ACTION in op.outputs)
    ends = [program.constants[name] for name in last.constants]
    if last.kind not in _LIMITED or last.outputs[0] != ACTION:
        raise RangeError("action", value=last.kind, expected=f"the first output of {_LIMITED}")
    if not (np.array_equal(ends[0], low) and np.array_equal(ends[1], high)):
        raise RangeError("limits", value=last.constants, expected="those of the specification")
    fail_safe = program.constants[FAIL_SAFE]
    if fail_safe.shape != low.shape:
        raise ShapeError(FAIL_SAFE, expected=low.shape, got=fail_safe.shape)
    if not ((low <= fail_safe) & (fail_safe <= high)).all():
        raise RangeError(FAIL_SAFE, value=fail_safe.tolist(), expected="within the action limits")

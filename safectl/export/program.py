"""A controller as a small static graph with three meanings that agree: torch, NumPy and C.

The value `observation` enters; `action` leaves, and optionally `margin` and `status`. The operation
that defines `action` ends in the limits of the specification, so no program can exceed them, and
`margin` and `status` are what that operation finds at this very action, or are absent.

A program may hold recurrent states: values that are read as they were left by the step before. A
program whose specification limits nothing (`network_spec`) is a bare network: a learned model, a
value head, a forward kinematics.
"""

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np

from safectl.errors import NonFiniteError, RangeError, ShapeError, UnknownNameError
from safectl.export.kinds import KINDS, output_values
from safectl.export.ops import NUMBER_FORMATS, AnyArray, Op, Value
from safectl.export.ops import Array as Array
from safectl.spec import Signal, Spec

OBSERVATION, ACTION, MARGIN, STATUS, FAIL_SAFE = (
    "observation",
    "action",
    "margin",
    "status",
    "fail_safe",
)
LIMITED = "limited"
"""The proposal within the limits, where a program continues with a safeguard."""
FLOAT32_MAX = float(np.finfo(np.float32).max)
"""Stands for infinity where a program needs a finite number."""
MARGIN_NONE = FLOAT32_MAX
"""Margin of a program without constraints: the smallest of no values, kept finite for the wire."""
MARGIN_UNKNOWN = -MARGIN_NONE
"""Margin of the fail-safe action: nothing is known about it."""

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,47}")  # C99 tells 63 characters apart; we add a prefix
_WITH_EVIDENCE = ("project_halfspace_box", "first_admissible", "nearest_admissible", "ngpc")
_LIMITED = ("clip", *_WITH_EVIDENCE)


@dataclass(frozen=True, slots=True)
class State:
    """A value that survives from one step to the next.

    A step that falls back because a number is not finite leaves every state as it was.

    Attributes:
        initial: Name of the constant, shape (n,), that it starts from.
        following: Name of the value that replaces it after a step.
    """

    initial: str
    following: str


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A controller with static shapes, no control flow but fixed loops, and no heap.

    Attributes:
        name: Lower-case C identifier.
        spec: Signals that enter and leave.
        ops: Operations in order; each names its inputs and outputs.
        constants: Finite float32 arrays, and integers of the number formats. `fail_safe`, shape
            (nu,), is the action for a non-finite observation.
        states: Values, by name, that are read as the step before left them.

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
    constants: Mapping[str, AnyArray]
    states: Mapping[str, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "constants", _freeze(self.constants))
        object.__setattr__(self, "states", MappingProxyType(dict(self.states)))
        _check_names((self.name, *self.constants, *self.states))
        values = self.values
        _check_value(values, ACTION, Value(self.spec.nu))
        _check_states(self, values)
        _check_evidence(self.ops)
        _check_constants(self)

    @property
    def values(self) -> Mapping[str, Value]:
        """Size and number format of every value: `observation`, the states, then the rest."""
        shapes = {name: array.shape for name, array in self.constants.items()}
        values = {OBSERVATION: Value(self.spec.nx)}
        for name, state in self.states.items():
            if state.initial not in shapes:
                raise UnknownNameError("initial state", state.initial, known=sorted(shapes))
            values[name] = Value(int(np.prod(shapes[state.initial])))
        for op in self.ops:
            for name, value in zip(op.outputs, output_values(op, values, shapes), strict=True):
                if name in values:
                    raise RangeError("value", value=name, expected="a name not defined before")
                values[name] = value
        return values

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size of every value, `observation` first."""
        return {name: value.size for name, value in self.values.items()}

    @property
    def is_network(self) -> bool:
        """Whether the specification limits nothing, so that nothing limits the action."""
        return not limits_action(self.spec)

    @property
    def unlimited_action(self) -> str:
        """Name of the value that becomes `action` by the limits or the projection."""
        if self.is_network:
            return ACTION
        return next(op.inputs[0] for op in self.ops if ACTION in op.outputs)

    def weights_crc32(self) -> int:
        """Condense the constants, in the order of their names, to 32 bits."""
        crc = 0
        for name in sorted(self.constants):
            crc = zlib.crc32(little_endian(self.constants[name]), crc)
        return crc

    def digest(self) -> int:
        """Condense name, specification, operations, states and constants to 32 bits."""
        text = f"{self.name}{self.spec.to_json()}{self.ops}{sorted(self.states.items())}"
        return zlib.crc32(text.encode(), self.weights_crc32())

    def products(self, op: Op) -> int:
        """Multiply-accumulate operations with weights of one operation in one step."""
        shapes = [self.constants[name].shape for name in op.constants]
        return KINDS[op.kind].multiply_adds(op, shapes)

    def multiply_adds(self) -> int:
        """Multiply-accumulate operations of all layers with weights in one step."""
        return sum(self.products(op) for op in self.ops)


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


def network_spec(nx: int, nu: int, *, period: float = 1.0) -> Spec:
    """Return the specification of a bare network: numbers without units that nothing limits."""
    return Spec(
        tuple(Signal(f"x{i}", "1", -math.inf, math.inf) for i in range(nx)),
        tuple(Signal(f"y{i}", "1", -FLOAT32_MAX, FLOAT32_MAX) for i in range(nu)),
        period,
    )


def limits_action(spec: Spec) -> bool:
    """Return whether any limit of the action is narrower than what float32 can hold."""
    low, high = action_limits(spec)
    return bool((low > -FLOAT32_MAX).any() or (high < FLOAT32_MAX).any())


def needed_ops(ops: Sequence[Op], wanted: set[str]) -> tuple[Op, ...]:
    """Return the operations that the outputs or the states depend on."""
    read, kept = wanted | {ACTION, MARGIN, STATUS}, []
    for op in reversed(ops):
        if read & set(op.outputs):
            read |= set(op.inputs)
            kept.append(op)
    return tuple(reversed(kept))


def little_endian(array: AnyArray) -> bytes:
    """Return the bytes of an array as a little-endian machine holds them."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def _freeze(constants: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
    frozen = {}
    for name in sorted(constants):
        given = np.asarray(constants[name])
        dtype = given.dtype.name if given.dtype.name in NUMBER_FORMATS else "float32"
        with np.errstate(over="ignore"):  # an overflow is reported below, by name
            array = np.array(given, dtype=dtype, order="C")
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


def _check_value(values: Mapping[str, Value], name: str, expected: Value) -> None:
    if name not in values:
        raise UnknownNameError("output of the program", name, known=sorted(values))
    if values[name].size != expected.size:
        raise ShapeError(f"value {name}", expected=(expected.size,), got=(values[name].size,))
    if values[name].dtype != expected.dtype:
        raise RangeError(f"value {name}", value=values[name].dtype, expected=expected.dtype)


def _check_states(program: Program, values: Mapping[str, Value]) -> None:
    for name, state in program.states.items():
        _check_value(values, state.following, values[name])


def _check_evidence(ops: tuple[Op, ...]) -> None:
    """Refuse a margin or status that says nothing about the action that leaves."""
    for op in ops:
        if not {MARGIN, STATUS} & set(op.outputs):
            continue
        if op.kind not in _WITH_EVIDENCE or op.outputs[:3] != (ACTION, MARGIN, STATUS):
            raise RangeError(
                "margin and status",
                value=(op.kind, op.outputs),
                expected="those of the operation that defines the action",
            )


def _check_constants(program: Program) -> None:
    used = {name for op in program.ops for name in op.constants} | {FAIL_SAFE}
    used |= {state.initial for state in program.states.values()}
    if used != set(program.constants):
        unused = sorted(used ^ set(program.constants))
        raise RangeError("constants", value=unused, expected="each used, and a fail_safe action")
    low, high = action_limits(program.spec)
    if not program.is_network:
        _check_limits(program, low, high)
    fail_safe = program.constants[FAIL_SAFE]
    if fail_safe.shape != low.shape:
        raise ShapeError(FAIL_SAFE, expected=low.shape, got=fail_safe.shape)
    if not ((low <= fail_safe) & (fail_safe <= high)).all():
        raise RangeError(FAIL_SAFE, value=fail_safe.tolist(), expected="within the action limits")


def _check_limits(program: Program, low: Array, high: Array) -> None:
    last = next(op for op in program.ops if ACTION in op.outputs)
    ends = [program.constants[name] for name in last.constants[:2]]
    if last.kind not in _LIMITED or last.outputs[0] != ACTION:
        raise RangeError("action", value=last.kind, expected=f"the first output of {_LIMITED}")
    if not (np.array_equal(ends[0], low) and np.array_equal(ends[1], high)):
        raise RangeError("limits", value=last.constants, expected="those of the specification")

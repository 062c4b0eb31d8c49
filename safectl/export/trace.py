"""Collects the operations of a program, one method per layer: arrays in, names out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError
from safectl.export import recurrent_layers, spatial_layers
from safectl.export.kinds import output_values
from safectl.export.normaliser import Normaliser
from safectl.export.ops import (
    NUMBER_FORMATS,
    AnyArray,
    Op,
    Strides,
    Value,
)
from safectl.export.program import (
    FAIL_SAFE,
    FLOAT32_MAX,
    LIMITED,
    OBSERVATION,
    Program,
    State,
    needed_ops,
)
from safectl.export.recorder import slope, weights
from safectl.spec import Spec

_Floats = npt.ArrayLike


@dataclass(slots=True)
class Tracer:
    """Collects operations and constants; every method returns the name of the value it defines.

    Weights are output-first: (out, in), (out, height, width, in). `name` names the value and begins
    the names of its constants.

    Attributes:
        name: Name of the program.
        spec: Its signals.
    """

    name: str
    spec: Spec
    _ops: list[Op] = field(default_factory=list, init=False)
    _constants: dict[str, AnyArray] = field(default_factory=dict, init=False)
    _values: dict[str, Value] = field(default_factory=dict, init=False)
    _states: dict[str, State] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._values = {OBSERVATION: Value(self.spec.nx)}

    def size(self, value: str) -> int:
        """Return the number of entries of a value."""
        return self._values[value].size

    def has(self, value: str) -> bool:
        """Return whether a value of this name is defined."""
        return value in self._values

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """Store an array and return its name; the same name needs the same content.

        Integers of the number formats stay what they are; everything else becomes float32.

        Raises:
            RangeError: If the name is taken by another array.
        """
        stored: AnyArray = np.asarray(array)
        if stored.dtype.name not in NUMBER_FORMATS:
            with np.errstate(over="ignore"):  # `Program` reports what is not finite in float32
                stored = stored.astype(np.float64).astype(np.float32)
        known = self._constants.setdefault(name, stored)
        is_same = known.dtype == stored.dtype and known.shape == stored.shape
        if not is_same or known.tobytes() != stored.tobytes():
            raise RangeError("constant", value=name, expected="a name not used before")
        return name

    def op(self, op: Op) -> str:
        """Append an operation and return the name of its first output.

        The same operation on the same values is appended once.

        Raises:
            ShapeError: If a size does not fit.
        """
        if op.outputs[0] in self._values and op in self._ops:
            return op.outputs[0]
        shapes = {name: array.shape for name, array in self._constants.items()}
        results = output_values(op, self._values, shapes)
        self._values.update(zip(op.outputs, results, strict=True))
        self._ops.append(op)
        return op.outputs[0]

    def state(self, name: str, initial: _Floats) -> str:
        """Append a value that is read as the last step left it; `keep` says what replaces it."""
        constant = self.constant(f"{name}_initial", initial)
        self._values[name] = Value(self._constants[constant].size)
        self._states[name] = State(constant, name)
        return name

    def keep(self, state: str, value: str) -> None:
        """Let a value replace a state after every step."""
        self._states[state] = replace(self._states[state], following=value)

    def normalise(self, value: str, normaliser: Normaliser, *, name: str) -> str:
        """Append a normaliser.

        The mean is split in two float32 numbers, the second one scaled beforehand, so that an
        observation with a large mean and a small variance keeps its digits.
        """
        scale = 1.0 / np.sqrt(normaliser.variance + normaliser.epsilon)
        rest = normaliser.mean - normaliser.mean.astype(np.float32).astype(np.float64)
        constants = (
            self.constant(f"{name}_mean", normaliser.mean),
            self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_shift", -rest * scale),
            self.constant(f"{name}_clip", [min(normaliser.clip, FLOAT32_MAX)]),
        )
        return self.op(Op("normalise", (value,), (name,), constants))

    def dense(
        self,
        value: str,
        weight: _Floats,
        bias: _Floats | None,
        *,
        name: str,
        activation: str = "none",
        alpha: float | None = None,
        rows: int = 1,
    ) -> str:
        """Append act(weight x + bias) over each of `rows` equal parts; weight (out, in)."""
        constants = weights(self, name, weight, bias)
        chosen = slope(activation, alpha)
        op = Op("dense", (value,), (name,), constants, activation, rows=rows, alpha=chosen)
        return self.op(op)

    def activation(
        self, value: str, kind: str, *, name: str, alpha: float | None = None, rows: int = 1
    ) -> str:
        """Append an activation; `none` appends nothing. `softmax` sums to one in each row."""
        if kind == "none":
            return value
        chosen = slope(kind, alpha)
        op = Op("activation", (value,), (name,), activation=kind, rows=rows, alpha=chosen)
        return self.op(op)

    conv2d = spatial_layers.conv2d
    conv1d = spatial_layers.conv1d
    depthwise_conv2d = spatial_layers.depthwise_conv2d
    max_pool2d = spatial_layers.max_pool2d
    average_pool2d = spatial_layers.average_pool2d
    simple_rnn = recurrent_layers.simple_rnn
    gru = recurrent_layers.gru
    lstm = recurrent_layers.lstm

    def affine(self, value: str, gain: _Floats, shift: _Floats, *, name: str) -> str:
        """Append gain * value + shift, entry by entry."""
        return self.scale_shift(value, gain, shift, name=name)

    def scale_shift(self, value: str, gain: _Floats, shift: _Floats, *, name: str) -> str:
        """Append gain * x + shift over every row as long as the gain: one number per channel."""
        constants = (self.constant(f"{name}_gain", gain), self.constant(f"{name}_shift", shift))
        return self.op(Op("affine", (value,), (name,), constants, rows=self._rows(value, name)))

    def layer_norm(
        self, value: str, gain: _Floats, shift: _Floats, epsilon: float, *, name: str
    ) -> str:
        """Append (x - mean) / sqrt(variance + epsilon) * gain + shift over rows like the gain."""
        constants = (
            self.constant(f"{name}_gain", gain),
            self.constant(f"{name}_shift", shift),
            self.constant(f"{name}_epsilon", [epsilon]),
        )
        return self.op(Op("layer_norm", (value,), (name,), constants, rows=self._rows(value, name)))

    def add(self, left: str, right: str, *, name: str) -> str:
        """Append the sum of two values of one size."""
        return self.op(Op("add", (left, right), (name,)))

    def multiply(self, left: str, right: str, *, name: str) -> str:
        """Append the product, entry by entry, of two values of one size."""
        return self.op(Op("multiply", (left, right), (name,)))

    def concat(self, values: Sequence[str], *, name: str, rows: int = 1) -> str:
        """Append the values joined row by row: rows = height * width joins the channels."""
        return self.op(Op("concat", tuple(values), (name,), rows=rows))

    def slice(self, value: str, start: int, stop: int, *, name: str) -> str:
        """Append a view of the entries from `start` to before `stop`."""
        return self.op(Op("slice", (value,), (name,), start=start, stop=stop))

    def limited(self, proposal: str, limits: tuple[str, str]) -> str:
        """Append the proposal within the limits, with which a safeguard goes on."""
        return self.op(Op("clip", (proposal,), (LIMITED,), limits))

    def permute(
        self, value: str, shape: tuple[int, ...], order: tuple[int, ...], *, name: str
    ) -> str:
        """Append a transposition: axis i of the result is axis `order[i]` of the input."""
        steps = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        sizes = tuple(shape[axis] for axis in order)
        strides = Strides(0, sizes, tuple(steps[axis] for axis in order))
        return self.op(Op("gather", (value,), (name,), detail=strides))

    def finish(self) -> Program:
        """Return the program without what nothing reads; it checks itself."""
        ops = needed_ops(self._ops, {state.following for state in self._states.values()})
        used = {name for op in ops for name in op.constants} | {FAIL_SAFE}
        used |= {state.initial for state in self._states.values()}
        constants = {name: array for name, array in self._constants.items() if name in used}
        return Program(self.name, self.spec, ops, constants, dict(self._states))

    def finish_network(self, value: str) -> Program:
        """Return a bare network whose output is a value; the specification is a `network_spec`."""
        self.constant(FAIL_SAFE, np.zeros(self.spec.nu))
        self.op(Op("concat", (value,), ("action",)))
        return self.finish()

    def _rows(self, value: str, name: str) -> int:
        width = len(self._constants[f"{name}_gain"])
        return max(1, self.size(value) // max(1, width))

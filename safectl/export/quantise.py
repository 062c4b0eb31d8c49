"""Post-training quantisation: a float program with calibration data becomes an integer one.

Dense layers and convolutions get 8-bit weights with one scale per output channel and, between them,
values of 8 bits, or of 16 (the 16x8 scheme of TensorFlow Lite, with 32-bit sums that are shown not
to overflow). Pools, slices and rearrangements between them stay integer, and in 8 bits activations
do, by tables of 256 entries; relu and relu6 cost nothing. Everything else, recurrent layers,
layer normalisation, add, concat, softmax, stays float between a `dequantise` and a `quantise`. A
layer that only floats read gives floats straight from its sums.

Behind a safeguard only the policy becomes integer: what finds and certifies the action stays float,
as an integer saturates where the calibration ended and would certify what it no longer sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError, ShapeError
from safectl.export.error_bound import activation_error, propagate, slope
from safectl.export.integer_layer import (
    IntegerWeights,
    integer_weights,
    quantisation,
    requantisation,
)
from safectl.export.interpret import replay, run_ops
from safectl.export.kinds.activation import FUNCTIONS, activate
from safectl.export.kinds.spatial import patches
from safectl.export.ops import AnyArray, Array, Integers, Op, Quantisation, Window
from safectl.export.program import (
    ACTION,
    FAIL_SAFE,
    LIMITED,
    MARGIN,
    OBSERVATION,
    STATUS,
    Program,
    needed_ops,
)

Numbers = npt.NDArray[np.float64]

_WEIGHTED = ("dense", "conv2d", "depthwise_conv2d")
_MOVING = ("slice", "gather", "max_pool2d", "average_pool2d")
_FUSED = ("none", "relu", "relu6")
_SATURATION = {"tanh": 4.0, "sigmoid": 8.0}
"""Beyond, an 8-bit table does not look: the function is flat there to within 7e-4."""
_OUTPUTS = {"tanh": (-1.0, 127.0 / 128.0), "sigmoid": (0.0, 255.0 / 256.0)}
"""Ranges of TensorFlow Lite for these outputs: steps of 1/128 and 1/256."""
_ROUNDING = 1e-5
"""Share of the largest magnitude that float32 rounding and multipliers may add to a bound."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """A quantised program and how far it can be from the float one.

    Attributes:
        program: Integer layers between float operations.
        bound: Largest difference per action, shape (nu,), in units of the action, for every
            observation that keeps each value of the float program within what the calibration
            saw; infinity where there is no bound.
    """

    program: Program
    bound: Numbers


def quantise(program: Program, observations: Array, *, bits: int = 8) -> Program:
    """Return a program with integer layers; see `quantise_with_bound`."""
    return quantise_with_bound(program, observations, bits=bits).program


def quantise_with_bound(program: Program, observations: Array, *, bits: int = 8) -> Quantised:
    """Quantise the layers of a program with the ranges that observations reach.

    Args:
        program: A float program.
        observations: Calibration data, shape (rows, nx), finite; consecutive steps for a program
            with states. A few hundred rows that cover what the robot will see.
        bits: 8 or 16, of the values; weights have 8.

    Raises:
        RangeError: If the bits are others, nothing is left to calibrate with, a range is tiny
            beside the weights, or the program is a safeguard without a policy.
        ShapeError: If the observations do not fit the specification.
    """
    if bits not in (8, 16):
        raise RangeError("bits", value=bits, expected="8 or 16")
    nx = program.spec.nx
    if observations.ndim != 2 or observations.shape[1] != nx or len(observations) == 0:
        raise ShapeError("observations", expected=("rows", nx), got=observations.shape)
    if not np.isfinite(observations).all():
        raise RangeError("observations", value="NaN or infinity", expected="finite numbers")
    split = tuple(part for op in program.ops for part in _split(op))
    whole = replace(program, ops=split)
    kept = _certifying(whole)
    if kept and not any(op.kind in _WEIGHTED and op.outputs[0] not in kept for op in split):
        expected = "a policy before the safeguard; what certifies stays float"
        raise RangeError("program", value=program.name, expected=expected)
    wanted = _wanted([op for op in split if op.outputs[0] not in kept], bits)
    builder = _Builder(whole, bits, _calibrate(whole, observations), wanted, kept)
    for op in split:
        builder.append(op)
    return builder.finish()


def _certifying(program: Program) -> frozenset[str]:
    """Return the first outputs of what evidence follows from, other than through the proposal."""
    reached = {MARGIN, STATUS}
    kept: set[str] = set()
    for op in reversed(program.ops):
        if reached & set(op.outputs) and LIMITED not in op.outputs:
            reached |= set(op.inputs) - {LIMITED}
            kept.add(op.outputs[0])
    return frozenset(kept)


def _split(op: Op) -> tuple[Op, ...]:
    """Write an activation that cannot be fused with integers as an operation of its own."""
    if op.kind not in _WEIGHTED or op.activation in _FUSED:
        return (op,)
    inner = f"{op.outputs[0]}_sum"
    return (
        replace(op, outputs=(inner,), activation="none"),
        Op("activation", (inner,), op.outputs, activation=op.activation, alpha=op.alpha)
        if op.activation != "softmax"
        else Op("activation", (inner,), op.outputs, activation="softmax", rows=op.rows),
    )


def _calibrate(program: Program, observations: Array) -> Mapping[str, AnyArray]:
    """Return every value of the float program for every observation."""
    before: dict[str, AnyArray] = {}
    for name, states in replay(program, observations).states.items():
        initial = program.constants[program.states[name].initial].reshape(1, -1)
        before[name] = np.concatenate([initial, states[:-1]])
    with np.errstate(all="ignore"):
        return run_ops(program, {OBSERVATION: observations.astype(np.float32), **before})


def _wanted(ops: Sequence[Op], bits: int) -> frozenset[str]:
    """Return the values that an integer layer reads, through operations that stay integer."""
    wanted: set[str] = set()
    for op in reversed(ops):
        passes = op.kind in _MOVING or (
            op.kind == "activation" and op.activation in FUNCTIONS and bits == 8
        )
        if op.kind in _WEIGHTED or (passes and op.outputs[0] in wanted):
            wanted.add(op.inputs[0])
    return frozenset(wanted)


@dataclass(slots=True)
class _Builder:
    """Collects the integer program, op by op, with the error of every value.

    Attributes:
        program: The float program.
        bits: Of the integer values.
        seen: What the calibration saw, (rows, size) per value.
        wanted: Values that are wanted as integers.
        kept: First outputs of operations that stay float.
    """

    program: Program
    bits: int
    seen: Mapping[str, AnyArray]
    wanted: frozenset[str]
    kept: frozenset[str]
    _ops: list[Op] = field(default_factory=list)
    _constants: dict[str, AnyArray] = field(default_factory=dict)
    _forms: dict[str, Quantisation] = field(default_factory=dict)
    _integer_errors: dict[str, Numbers] = field(default_factory=dict)
    _float_errors: dict[str, Numbers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._constants = dict(self.program.constants)
        self._float_errors[OBSERVATION] = np.zeros(self.program.spec.nx)
        for name in self.program.states:
            self._float_errors[name] = np.full(self.seen[name].shape[1], np.inf)

    def append(self, op: Op) -> None:
        """Append the integer twin of an operation, or the operation itself."""
        is_wanted = op.outputs[0] in self.wanted
        if op.outputs[0] in self.kept:
            self._float(op)
        elif op.kind in _WEIGHTED:
            self._weighted(op, is_wanted)
        elif is_wanted and op.kind in _MOVING:
            self._moving(op)
        elif is_wanted and op.kind == "activation" and op.inputs[0] in self._forms:
            self._lookup(op)
        else:
            self._float(op)

    def finish(self) -> Quantised:
        """Return the program and its bound."""
        states = self.program.states
        for name in (ACTION, *(state.following for state in states.values())):
            self._as_float(name)
        ops = needed_ops(self._ops, {state.following for state in states.values()})
        used = {name for op in ops for name in op.constants} | {FAIL_SAFE}
        used |= {state.initial for state in states.values()}
        constants = {name: array for name, array in self._constants.items() if name in used}
        program = replace(self.program, ops=ops, constants=constants)
        peak = np.abs(self.seen[ACTION]).max(axis=0)
        return Quantised(program, self._float_errors[ACTION] + _ROUNDING * (1.0 + peak))

    def _as_float(self, name: str) -> str:
        if name not in self._float_errors:
            form = self._forms[name]
            self._ops.append(Op("dequantise", (_integer(name),), (name,), detail=form))
            self._float_errors[name] = self._integer_errors[name]
        return name

    def _as_integer(self, name: str) -> str:
        if name not in self._forms:
            form = self._form(name)
            self._ops.append(Op("quantise", (name,), (_integer(name),), detail=form))
            self._forms[name] = form
            self._integer_errors[name] = self._float_errors[name] + 0.5 * form.scale
        return _integer(name)

    def _form(self, name: str, limit: float = np.inf) -> Quantisation:
        values = self.seen[name]
        low, high = float(values.min()), float(values.max())
        return quantisation(max(low, -limit), min(high, limit), self.bits)

    def _float(self, op: Op) -> None:
        for name in op.inputs:
            self._as_float(name)
        self._ops.append(op)
        constants = [self.program.constants[name] for name in op.constants]
        errors = [self._float_errors[name] for name in op.inputs]
        results = propagate(op, constants, errors, [self.seen[name] for name in op.inputs])
        self._float_errors.update(zip(op.outputs, results, strict=True))

    def _moving(self, op: Op) -> None:
        """Slices, rearrangements and pools keep scale and zero of their input."""
        source, name = self._as_integer(op.inputs[0]), op.outputs[0]
        form = self._forms[op.inputs[0]]
        changed = replace(op, inputs=(source,), outputs=(_integer(name),))
        if isinstance(op.detail, Window):
            detail = Integers(form.dtype, form.zero, form.dtype, window=op.detail)
            changed = replace(changed, kind=f"integer_{op.kind}", detail=detail)
        self._ops.append(changed)
        error = propagate(op, [], [self._integer_errors[op.inputs[0]]], [self.seen[op.inputs[0]]])
        rounding = 0.5 * form.scale if op.kind == "average_pool2d" else 0.0
        self._forms[name], self._integer_errors[name] = form, error[0] + rounding

    def _lookup(self, op: Op) -> None:
        """Tabulate an activation over the 256 values of its input."""
        name, source = op.outputs[0], self._forms[op.inputs[0]]
        form = self._form(name)
        if op.activation in _OUTPUTS:
            form = quantisation(*_OUTPUTS[op.activation], self.bits)
        inputs = ((np.arange(-128, 128) - source.zero) * source.scale).astype(np.float32)
        exact = activate(op, inputs[None])[0]
        table = np.clip(np.rint(exact / form.scale) + form.zero, *form.range).astype(np.int8)
        self._constants[f"{name}_table"] = table
        self._ops.append(
            Op("lookup", (_integer(op.inputs[0]),), (_integer(name),), (f"{name}_table",))
        )
        flat = 7e-4 if op.activation in _SATURATION else 0.0
        error = activation_error(op, self._integer_errors[op.inputs[0]], self.seen[op.inputs[0]])
        top = 1.0 * form.scale if op.activation in _OUTPUTS else 0.5 * form.scale
        self._forms[name], self._integer_errors[name] = form, error + flat + top

    def _weighted(self, op: Op, is_wanted: bool) -> None:
        """Append an integer layer whose output is an integer if it is wanted, else a float."""
        source, name = self._as_integer(op.inputs[0]), op.outputs[0]
        given = self._forms[op.inputs[0]]
        weight, bias = (self.program.constants[key] for key in op.constants)
        weights = integer_weights(weight, bias, given)
        error = self._layer_error(op, weights, given)
        keys: dict[str, AnyArray] = {"weight": weights.weight, "bias": weights.bias}
        window = op.detail if isinstance(op.detail, Window) else None
        detail = Integers(given.dtype, given.zero, "float32", window=window)
        output, form = name, None
        if is_wanted:
            form = self._form(name, self._limit(name))
            scaling = requantisation(weights, form)
            keys |= {"multiplier": scaling.multiplier, "shift": scaling.shift}
            low, high = self._ends(op, form)
            detail = replace(
                detail, result=form.dtype, left=scaling.left, zero=form.zero, low=low, high=high
            )
            output = _integer(name)
        else:
            keys["scale"] = weights.scale.astype(np.float32)
        names = {key: f"{name}_{key}_q" for key in keys}
        self._constants.update({names[key]: array for key, array in keys.items()})
        changed = replace(op, kind=f"integer_{op.kind}", inputs=(source,), outputs=(output,))
        changed = replace(changed, constants=tuple(names.values()), detail=detail)
        if form is None:
            self._ops.append(changed)
            self._float_errors[name] = error
        else:
            self._ops.append(replace(changed, activation="none"))
            self._forms[name], self._integer_errors[name] = form, error + 0.5 * form.scale

    def _limit(self, name: str) -> float:
        """Return where the only reader of a sum, a table, becomes flat; a state is read again."""
        if any(state.following == name for state in self.program.states.values()):
            return np.inf
        readers = [op for op in self.program.ops if name in op.inputs]
        if len(readers) == 1 and readers[0].kind == "activation" and self.bits == 8:
            return _SATURATION.get(readers[0].activation, np.inf)
        return np.inf

    def _ends(self, op: Op, form: Quantisation) -> tuple[int, int]:
        low, high = form.range
        if op.activation in ("relu", "relu6"):
            low = form.zero
        if op.activation == "relu6":
            high = min(high, form.zero + round(6.0 / form.scale))
        return low, high

    def _layer_error(self, op: Op, weights: IntegerWeights, given: Quantisation) -> Numbers:
        """|y - y'| <= |w'| e + |w' - w| |x| + |b' - b| for rounded weights w' and bias b'."""
        weight, bias = (self.program.constants[key] for key in op.constants)
        flat = weight.reshape(len(weight), -1).astype(np.float64)
        integers = weights.weight.reshape(flat.shape).astype(np.float64)
        step = weights.scale / given.scale
        rounded = integers * step[:, None]
        start = (weights.bias + given.zero * integers.sum(axis=1)) * weights.scale
        error, peak = self._integer_errors[op.inputs[0]], np.abs(self.seen[op.inputs[0]]).max(0)
        if not np.isfinite(error).all():
            return np.full(self.seen[op.outputs[0]].shape[1], np.inf)
        size, difference = np.abs(rounded), np.abs(rounded - flat)
        shift = np.abs(start - bias)
        if isinstance(op.detail, Window):
            around, within = (patches(part[None], op.detail)[0] for part in (error, peak))
            shape = (op.detail.groups, -1, flat.shape[1])
            result = np.einsum("pgt,got->pgo", around, size.reshape(shape))
            result += np.einsum("pgt,got->pgo", within, difference.reshape(shape))
            total: Numbers = (result.reshape(len(result), -1) + shift).ravel()
        else:
            inputs, peaks = error.reshape(op.rows, -1), peak.reshape(op.rows, -1)
            total = (inputs @ size.T + peaks @ difference.T + shift).ravel()
        return total * slope(op, op.activation, 0.0)


def _integer(name: str) -> str:
    return f"{name}_q"

"""How far an error of the inputs of a float operation can move its outputs.

Errors are vectors, one bound per entry of a value. They hold where the values of the float program
stay within what the calibration saw: products and normalisations use the largest and the smallest
magnitudes of it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from safectl.export.kinds import KINDS
from safectl.export.kinds.kind import detail_of
from safectl.export.ops import AnyArray, Op, Recurrence

Numbers = npt.NDArray[np.float64]

LIPSCHITZ = {
    "none": 1.0,
    "relu": 1.0,
    "relu6": 1.0,
    "selu": 1.7581,
    "softplus": 1.0,
    "softsign": 1.0,
    "tanh": 1.0,
    "sigmoid": 0.25,
    "hard_sigmoid": 0.2,
    "hard_sigmoid_v3": 1.0 / 6.0,
    "swish": 1.0999,
    "gelu": 1.1290,
    "gelu_tanh": 1.1291,
}
"""Largest slope of each activation; those of `leaky_relu`, `elu` and `exponential` vary."""

_REARRANGING = ("slice", "concat", "gather", "max_pool2d", "average_pool2d")
_SAME = ("abs", "clip")


def slope(op: Op, kind: str, largest: float) -> float:
    """Return the largest slope of an activation on inputs up to `largest`."""
    if kind in ("leaky_relu", "elu"):
        return max(1.0, abs(op.alpha))
    if kind == "exponential":
        return float(np.exp(min(largest, 88.0)))
    return LIPSCHITZ[kind]


def activation_error(op: Op, error: Numbers, values: AnyArray) -> Numbers:
    """Return the error after the activation of an operation on these values."""
    if op.activation == "softmax":  # |dp_i| <= sum_j |J_ij| e and sum_j |J_ij| = 2 p (1 - p) <= 1/2
        rows = error.reshape(op.rows, -1)
        return np.repeat(np.minimum(0.5 * rows.max(axis=1), 1.0), rows.shape[1])
    largest = float(np.max(values)) + float(error.max())
    return slope(op, op.activation, largest) * error


def propagate(
    op: Op,
    constants: Sequence[AnyArray],
    errors: Sequence[Numbers],
    values: Sequence[AnyArray],
) -> list[Numbers]:
    """Bound the errors of the outputs.

    Args:
        op: A float operation without weights of its own, or a recurrent layer.
        constants: Its constants.
        errors: Bound per entry of each input.
        values: What the calibration saw of each input, (batch, size).

    Returns:
        Bound per entry of each output; infinity where there is none: behind a projection, whose
        corner may move far, and behind a recurrent layer that starts from a state of unknown error.
    """
    peaks = [np.abs(array).max(axis=0) for array in values]
    weights = [np.abs(array.astype(np.float64)) for array in constants]
    if op.kind in _REARRANGING:
        rows = [error[None] for error in errors]
        return [part[0] for part in KINDS[op.kind].meaning(op, rows, constants)]
    if op.kind in _SAME:
        return [errors[0]]
    match op.kind:
        case "normalise":
            return [errors[0] * weights[1]]
        case "affine":
            return [errors[0] * np.tile(weights[0], op.rows)]
        case "add":
            return [errors[0] + errors[1]]
        case "multiply":
            return [_product(errors, peaks)]
        case "dot":
            return [_product(errors, peaks).sum(keepdims=True)]
        case "activation":
            return [activation_error(op, errors[0], values[0])]
        case "layer_norm":
            return [_layer_norm(op, weights, errors[0], values[0])]
        case "simple_rnn" | "gru" | "lstm":
            return _recurrent(op, weights, errors, peaks)
        case _:
            sizes = KINDS[op.kind].meaning(op, [array[:1] for array in values], constants)
            return [np.full(part.shape[1], np.inf) for part in sizes]


def _product(errors: Sequence[Numbers], peaks: Sequence[AnyArray]) -> Numbers:
    result: Numbers = peaks[0] * errors[1] + peaks[1] * errors[0] + errors[0] * errors[1]
    return result


def _layer_norm(op: Op, weights: Sequence[Numbers], error: Numbers, values: AnyArray) -> Numbers:
    """|dy| <= gain / sigma (2 + sqrt(n)) |dx|, sigma being the smallest on the way."""
    rows = values.reshape(len(values), op.rows, -1).astype(np.float64)
    largest = error.reshape(op.rows, -1).max(axis=1)
    sigma = np.sqrt(np.square(rows.std(axis=2).min(axis=0)) + weights[2]) - largest
    steep = np.where(sigma > 0.0, (2.0 + np.sqrt(rows.shape[2])) / np.maximum(sigma, 1e-30), np.inf)
    result: Numbers = np.repeat(steep * largest, rows.shape[2]) * np.tile(weights[0], op.rows)
    return result


def _recurrent(
    op: Op, weights: Sequence[Numbers], errors: Sequence[Numbers], peaks: Sequence[AnyArray]
) -> list[Numbers]:
    """Add up the errors step by step; states stay within one where tanh makes them."""
    recurrence = detail_of(op, Recurrence)
    units = weights[1].shape[1]
    states = 2 if op.kind == "lstm" else 1
    bounded = op.activation in ("tanh", "sigmoid", "softsign", "hard_sigmoid", "hard_sigmoid_v3")
    if len(errors) > 1 or not bounded:
        width = recurrence.steps * units
        lengths = [width] * recurrence.return_sequences + [units] * states
        return [np.full(length, np.inf) for length in lengths]
    state = [np.zeros(units) for _ in range(states)]
    seen = []
    for step, error in enumerate(errors[0].reshape(recurrence.steps, -1)):
        state = _CELL_ERRORS[op.kind](op, weights, error, state, step)
        seen.append(state[0])
    return [np.concatenate(seen), *state] if recurrence.return_sequences else state


def _rnn_error(
    op: Op, weights: Sequence[Numbers], error: Numbers, state: Sequence[Numbers], step: int
) -> list[Numbers]:
    del step
    return [slope(op, op.activation, 1.0) * (weights[0] @ error + weights[1] @ state[0])]


def _gru_error(
    op: Op, weights: Sequence[Numbers], error: Numbers, state: Sequence[Numbers], step: int
) -> list[Numbers]:
    """|z h + (1 - z) k| moves by at most 2 e_z + max(e_h, e_k) + e_z (e_h + e_k)."""
    del step
    recurrence, (h,) = detail_of(op, Recurrence), state
    gate = slope(op, recurrence.recurrent_activation, 1.0)
    units = len(h)
    sums = weights[0] @ error
    gates = gate * (sums[: 2 * units] + weights[1] @ h)
    update, reset = np.minimum(gates[:units], 1.0), np.minimum(gates[units:], 1.0)
    moved = weights[3] @ h
    if recurrence.reset_after:  # |b' + R' h| is at most the sum of the magnitudes
        inner = moved + reset * (weights[3].sum(axis=1) + weights[4] + moved)
    else:
        inner = weights[3] @ (h + reset * (1.0 + h))
    proposed = slope(op, op.activation, 1.0) * (sums[2 * units :] + inner)
    return [2.0 * update + np.maximum(h, proposed) + update * (h + proposed)]


def _lstm_error(
    op: Op, weights: Sequence[Numbers], error: Numbers, state: Sequence[Numbers], step: int
) -> list[Numbers]:
    """A cell grows by at most one per step, so |c| <= step before the step with this number."""
    recurrence, (h, c) = detail_of(op, Recurrence), state
    gate, inner = slope(op, recurrence.recurrent_activation, 1.0), slope(op, op.activation, 1.0)
    units = len(h)
    sums = weights[0] @ error + weights[1] @ h
    gates = np.minimum(gate * sums, 1.0).reshape(4, units)
    enter, forget, leave = gates[0], gates[1], gates[3]
    proposed = inner * sums[2 * units : 3 * units]
    cell = c + forget * (step + c) + proposed + enter * (1.0 + proposed)
    return [inner * cell + leave * (1.0 + inner * cell), cell]


_CELL_ERRORS = {"simple_rnn": _rnn_error, "gru": _gru_error, "lstm": _lstm_error}

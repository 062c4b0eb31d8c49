"""SimpleRNN, GRU and LSTM as methods of `Tracer`, with the weights of Keras, output-first."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from safectl.errors import ShapeError
from safectl.export.ops import Op, Recurrence
from safectl.export.recorder import Recorder

_Floats = npt.ArrayLike


def simple_rnn(
    tracer: Recorder,
    value: str,
    kernel: _Floats,
    recurrent: _Floats,
    bias: _Floats,
    *,
    steps: int,
    name: str,
    stateful: bool = False,
    return_sequences: bool = False,
    activation: str = "tanh",
    initial: str | None = None,
) -> str:
    """Append h = act(bias + kernel x + recurrent h) over a sequence (steps, features).

    Args:
        tracer: The program so far.
        value: The sequence.
        kernel: Shape (units, features).
        recurrent: Shape (units, units).
        bias: Shape (units,).
        steps: Length of the sequence.
        name: Name of the result.
        stateful: Whether the layer starts from where the last step of the program left it.
        return_sequences: Whether every state of the sequence is returned, not only the last.
        activation: Activation of the state.
        initial: Value that the layer starts from instead of zero.
    """
    constants = _constants(tracer, name, kernel, recurrent, bias)
    recurrence = Recurrence(steps, return_sequences)
    op = Op("simple_rnn", (value,), (), constants, activation, detail=recurrence)
    return _append(
        tracer, op, name, ("",), stateful, units=np.asarray(recurrent).shape[1], initial=(initial,)
    )


def gru(
    tracer: Recorder,
    value: str,
    kernel: _Floats,
    recurrent: _Floats,
    bias: _Floats,
    *,
    steps: int,
    name: str,
    stateful: bool = False,
    return_sequences: bool = False,
    reset_after: bool = True,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    initial: str | None = None,
) -> str:
    """Append a GRU with gates in the order z (update), r (reset), candidate.

    Args:
        tracer: The program so far.
        value: The sequence, (steps, features).
        kernel: Shape (3 units, features).
        recurrent: Shape (3 units, units).
        bias: With `reset_after` shape (2, 3 units), input and recurrent, else (3 units,).
        steps: Length of the sequence.
        name: Name of the result.
        stateful: Whether the layer starts from where the last step of the program left it.
        return_sequences: Whether every state of the sequence is returned, not only the last.
        reset_after: Whether the reset gate acts after the recurrent product.
        activation: Activation of the candidate.
        recurrent_activation: Activation of the gates.
        initial: Value that the layer starts from instead of zero.
    """
    matrix, biases = np.asarray(recurrent, np.float64), np.asarray(bias, np.float64)
    units = matrix.shape[-1]
    wanted = (2, 3 * units) if reset_after else (3 * units,)
    if biases.shape != wanted or matrix.shape != (3 * units, units):
        raise ShapeError(f"bias of gru {name}", expected=wanted, got=biases.shape)
    start = biases
    if reset_after:
        start = biases[0].copy()
        start[: 2 * units] += biases[1, : 2 * units]
    constants = _constants(tracer, name, kernel, matrix[: 2 * units], start)
    constants += (tracer.constant(f"{name}_candidate", matrix[2 * units :]),)
    if reset_after:
        constants += (tracer.constant(f"{name}_candidate_bias", biases[1, 2 * units :]),)
    recurrence = Recurrence(steps, return_sequences, reset_after, recurrent_activation)
    op = Op("gru", (value,), (), constants, activation, detail=recurrence)
    return _append(
        tracer, op, name, ("",), stateful, units=np.asarray(recurrent).shape[1], initial=(initial,)
    )


def lstm(
    tracer: Recorder,
    value: str,
    kernel: _Floats,
    recurrent: _Floats,
    bias: _Floats,
    *,
    steps: int,
    name: str,
    stateful: bool = False,
    return_sequences: bool = False,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    cell_limit: float | None = None,
    initial: tuple[str, str] | None = None,
) -> str:
    """Append an LSTM with gates in the order i (input), f (forget), g (candidate), o (output).

    Args:
        tracer: The program so far.
        value: The sequence, (steps, features).
        kernel: Shape (4 units, features).
        recurrent: Shape (4 units, units).
        bias: Shape (4 units,).
        steps: Length of the sequence.
        name: Name of the result.
        stateful: Whether the layer starts from where the last step of the program left it.
        return_sequences: Whether every state of the sequence is returned, not only the last.
        activation: Activation of candidate and cell.
        recurrent_activation: Activation of the gates.
        cell_limit: Largest magnitude of an entry of the cell.
        initial: Values of state and cell that the layer starts from instead of zero.
    """
    constants = _constants(tracer, name, kernel, recurrent, bias)
    recurrence = Recurrence(
        steps, return_sequences, recurrent_activation=recurrent_activation, cell_limit=cell_limit
    )
    op = Op("lstm", (value,), (), constants, activation, detail=recurrence)
    return _append(
        tracer,
        op,
        name,
        ("", "_cell"),
        stateful,
        units=np.asarray(recurrent).shape[1],
        initial=initial or (None, None),
    )


def _constants(
    tracer: Recorder, name: str, kernel: _Floats, recurrent: _Floats, bias: _Floats
) -> tuple[str, ...]:
    return (
        tracer.constant(f"{name}_kernel", kernel),
        tracer.constant(f"{name}_recurrent", recurrent),
        tracer.constant(f"{name}_bias", bias),
    )


def _append(
    tracer: Recorder,
    op: Op,
    name: str,
    parts: tuple[str, ...],
    stateful: bool,
    *,
    units: int,
    initial: tuple[str | None, ...],
) -> str:
    """Append a recurrent layer with its states, one per part of its memory."""
    given = tuple(value for value in initial if value is not None)
    if stateful:
        given = tuple(tracer.state(f"{name}{part}_state", np.zeros(units)) for part in parts)
    is_sequence = isinstance(op.detail, Recurrence) and op.detail.return_sequences
    after = tuple(f"{name}{part}_last" if is_sequence else f"{name}{part}" for part in parts)
    outputs = (name, *after) if is_sequence else after
    tracer.op(replace(op, inputs=(*op.inputs, *given), outputs=outputs))
    if stateful:
        for state, value in zip(given, after, strict=True):
            tracer.keep(state, value)
    return name

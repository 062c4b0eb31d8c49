"""SimpleRNN, GRU and LSTM as methods of `Tracer`, with the weights of Keras, output-first."""

from dataclasses import replace
from typing import Required, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from safectl.errors import ShapeError
from safectl.export.ops import Op, Recurrence
from safectl.export.recorder import Recorder

_Floats = npt.ArrayLike


class SequenceOptions(TypedDict, total=False):
    """What all recurrent layers take."""

    name: Required[str]
    """Name of the result."""
    steps: Required[int]
    """Length of the sequence."""
    stateful: bool
    """Whether the layer starts from where the last step of the program left it."""
    return_sequences: bool
    """Whether every state of the sequence is returned, not only the last."""
    activation: str
    """Activation of the state, of candidate and cell; tanh by default."""
    alpha: float
    """Slope of `leaky_relu`, scale of `elu`; of the gates too."""


def simple_rnn(
    tracer: Recorder,
    value: str,
    kernel: _Floats,
    recurrent: _Floats,
    bias: _Floats,
    *,
    initial: str | None = None,
    **options: Unpack[SequenceOptions],
) -> str:
    """Append h = act(bias + kernel x + recurrent h) over a sequence (steps, features).

    Args:
        tracer: The program so far.
        value: The sequence.
        kernel: Shape (units, features).
        recurrent: Shape (units, units).
        bias: Shape (units,).
        initial: Value that the layer starts from instead of zero.
        **options: `SequenceOptions`.
    """
    constants = _constants(tracer, options["name"], kernel, recurrent, bias)
    op = Op("simple_rnn", (value,), (), constants, detail=_recurrence(options))
    return _append(tracer, op, options, (initial,), units=np.asarray(recurrent).shape[1])


def gru(
    tracer: Recorder,
    value: str,
    kernel: _Floats,
    recurrent: _Floats,
    bias: _Floats,
    *,
    reset_after: bool = True,
    recurrent_activation: str = "sigmoid",
    initial: str | None = None,
    **options: Unpack[SequenceOptions],
) -> str:
    """Append a GRU with gates in the order z (update), r (reset), candidate.

    Args:
        tracer: The program so far.
        value: The sequence, (steps, features).
        kernel: Shape (3 units, features).
        recurrent: Shape (3 units, units).
        bias: With `reset_after` shape (2, 3 units), input and recurrent, else (3 units,).
        reset_after: Whether the reset gate acts after the recurrent product.
        recurrent_activation: Activation of the gates.
        initial: Value that the layer starts from instead of zero.
        **options: `SequenceOptions`.
    """
    name = options["name"]
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
    detail = replace(
        _recurrence(options), reset_after=reset_after, recurrent_activation=recurrent_activation
    )
    op = Op("gru", (value,), (), constants, detail=detail)
    return _append(tracer, op, options, (initial,), units=units)


def lstm(
    tracer: Recorder,
    value: str,
    kernel: _Floats,
    recurrent: _Floats,
    bias: _Floats,
    *,
    recurrent_activation: str = "sigmoid",
    cell_limit: float | None = None,
    initial: tuple[str, str] | None = None,
    **options: Unpack[SequenceOptions],
) -> str:
    """Append an LSTM with gates in the order i (input), f (forget), g (candidate), o (output).

    Args:
        tracer: The program so far.
        value: The sequence, (steps, features).
        kernel: Shape (4 units, features).
        recurrent: Shape (4 units, units).
        bias: Shape (4 units,).
        recurrent_activation: Activation of the gates.
        cell_limit: Largest magnitude of an entry of the cell.
        initial: Values of state and cell that the layer starts from instead of zero.
        **options: `SequenceOptions`.
    """
    constants = _constants(tracer, options["name"], kernel, recurrent, bias)
    detail = replace(
        _recurrence(options), recurrent_activation=recurrent_activation, cell_limit=cell_limit
    )
    op = Op("lstm", (value,), (), constants, detail=detail)
    return _append(
        tracer, op, options, initial or (None, None), units=np.asarray(recurrent).shape[1]
    )


def _recurrence(options: SequenceOptions) -> Recurrence:
    return Recurrence(options["steps"], options.get("return_sequences", False))


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
    options: SequenceOptions,
    initial: tuple[str | None, ...],
    *,
    units: int,
) -> str:
    """Append a recurrent layer with its states, one per initial value of its memory."""
    name, parts = options["name"], ("", "_cell")[: len(initial)]
    given = tuple(value for value in initial if value is not None)
    is_stateful = options.get("stateful", False)
    if is_stateful:
        given = tuple(tracer.state(f"{name}{part}_state", np.zeros(units)) for part in parts)
    is_sequence = options.get("return_sequences", False)
    after = tuple(f"{name}{part}_last" if is_sequence else f"{name}{part}" for part in parts)
    outputs = (name, *after) if is_sequence else after
    op = replace(op, activation=options.get("activation", "tanh"), alpha=options.get("alpha", 0.0))
    tracer.op(replace(op, inputs=(*op.inputs, *given), outputs=outputs))
    if is_stateful:
        for state, value in zip(given, after, strict=True):
            tracer.keep(state, value)
    return name

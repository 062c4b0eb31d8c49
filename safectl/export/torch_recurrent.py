"""RNN, GRU and LSTM of torch: several layers, both directions, one bias or two."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.fx import Node

from safectl.export.torch_graph import Importer, Numbers, numbers, operation, unsupported
from safectl.export.torch_value import Traced, traced


class _Layer(NamedTuple):
    """Weights of one layer in one direction, gates in the order of torch."""

    kernel: Numbers
    recurrent: Numbers
    bias: Numbers
    recurrent_bias: Numbers


def recurrent(importer: Importer, node: Node, arguments: Sequence[Any]) -> tuple[Traced, ...]:
    """Append a recurrent network and return its sequence and what its states are at the end."""
    kind = _KINDS[operation(node)]
    sequence, starts, weights, has_biases, layers, _, _, both_ways, batch_first = arguments
    starts = [starts] if kind != "lstm" else list(starts)
    per_layer = 4 if has_biases else 2
    directions = 2 if both_ways else 1
    if len(weights) != per_layer * layers * directions:
        raise unsupported(node, "Set proj_size to zero.")
    x = _without_batch(node, sequence, batch_first)
    ends: list[list[Traced]] = []
    for layer in range(layers):
        found = []
        for direction in range(directions):
            position = layer * directions + direction
            chosen = _layer(weights[position * per_layer :][:per_layer])
            start = [state[position] for state in map(_states, starts)]
            found.append(_run(importer, node, kind, x, chosen, start, backwards=direction == 1))
        x = found[0][0] if directions == 1 else _join(importer, [one[0] for one in found])
        ends += [one[1] for one in found]
    output = x.moved(lambda index: index[None] if batch_first else index[:, None])
    last = [_stack(importer, [end[part] for end in ends]) for part in range(len(starts))]
    return (output, *last)


def _without_batch(node: Node, sequence: Traced, batch_first: bool) -> Traced:
    axis = 0 if batch_first else 1
    if len(sequence.shape) != 3 or sequence.shape[axis] != 1:
        raise unsupported(node, "Give it one sequence: (1, steps, features) with batch_first=True.")
    return sequence.moved(lambda index: index.squeeze(axis))


def _states(start: Any) -> list[Any]:  # noqa: ANN401 - a traced tensor or a constant
    """Split the initial state by layer: traced rows, or constant vectors."""
    if isinstance(start, Traced):
        return [Traced(start.value, index[0]) for index in start.index]
    return list(numbers(start)[:, 0])


def _layer(weights: Sequence[Any]) -> _Layer:
    arrays = [numbers(weight) for weight in weights]
    zero = np.zeros(len(arrays[0]))
    return _Layer(arrays[0], arrays[1], *(arrays[2:] or (zero, zero)))


class _Job(NamedTuple):
    """One layer in one direction, as it is appended."""

    value: str
    layer: _Layer
    name: str
    steps: int
    initial: tuple[str, ...]
    stateful: bool


def _run(
    importer: Importer,
    node: Node,
    kind: str,
    x: Traced,
    layer: _Layer,
    start: Sequence[Any],
    *,
    backwards: bool,
) -> tuple[Traced, list[Traced]]:
    """Append one layer in one direction: the states in the order of x, and the last ones."""
    steps, units = x.shape[0], layer.recurrent.shape[1]
    if backwards:
        x = x.moved(lambda index: index[::-1])
    name = importer.fresh()
    given = [state for state in start if isinstance(state, Traced)]
    if not given and any(np.any(state) for state in start):
        raise unsupported(node, "Start it from zero, or pass the state as an input.")
    initial = tuple(importer.arranged(state) for state in given)
    stateful = importer.stateful and not given and not backwards
    job = _Job(importer.arranged(x), layer, name, steps, initial, stateful)
    value = _append(importer, kind, job)
    states = traced(value, (steps, units))
    if backwards:
        states = states.moved(lambda index: index[::-1])
    parts = ("_last", "_cell_last") if kind == "lstm" else ("_last",)
    return states, [traced(f"{name}{part}", (units,)) for part in parts]


def _append(importer: Importer, kind: str, job: _Job) -> str:
    """Append with our order of gates: torch has r, z, n for a GRU, where ours are z, r, n."""
    layer, units = job.layer, job.layer.recurrent.shape[1]
    options: dict[str, Any] = {
        "steps": job.steps,
        "name": job.name,
        "stateful": job.stateful,
        "return_sequences": True,
    }
    tracer, initial = importer.tracer, job.initial
    if kind == "gru":
        order = np.r_[units : 2 * units, :units, 2 * units : 3 * units]
        biases = np.stack([layer.bias[order], layer.recurrent_bias[order]])
        kernel, matrix = layer.kernel[order], layer.recurrent[order]
        options["initial"] = initial[0] if initial else None
        return tracer.gru(job.value, kernel, matrix, biases, **options)
    bias = layer.bias + layer.recurrent_bias
    if kind == "lstm":
        options["initial"] = initial or None
        return tracer.lstm(job.value, layer.kernel, layer.recurrent, bias, **options)
    options["initial"] = initial[0] if initial else None
    return tracer.simple_rnn(
        job.value, layer.kernel, layer.recurrent, bias, activation=kind, **options
    )


def _join(importer: Importer, parts: Sequence[Traced]) -> Traced:
    """Join the features of both directions, step by step."""
    steps, units = parts[0].shape
    values = [importer.arranged(part) for part in parts]
    joined = importer.tracer.concat(values, name=importer.fresh(), rows=steps)
    return traced(joined, (steps, units * len(parts)))


def _stack(importer: Importer, parts: Sequence[Traced]) -> Traced:
    """Return the last states as torch does: (layers, 1, units)."""
    if len(parts) == 1:
        return parts[0].moved(lambda index: index[None, None])
    values = [part.value for part in parts]
    joined = importer.tracer.concat(values, name=importer.fresh())
    return traced(joined, (len(parts), 1, parts[0].shape[0]))


_KINDS: Mapping[str, str] = {"rnn_tanh": "tanh", "rnn_relu": "relu", "gru": "gru", "lstm": "lstm"}
"""Kind of layer, or for a plain one its activation, by the name of the operation in torch."""

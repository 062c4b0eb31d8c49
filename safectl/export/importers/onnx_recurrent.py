"""ONNX `RNN`, `GRU` and `LSTM`, with gates in the order of Keras."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from safectl.export.importers.layers import Array, Recurrent
from safectl.export.importers.onnx_layer import OnnxLayer

_CELLS: dict[str, tuple[Literal["simple_rnn", "gru", "lstm"], tuple[int, ...], tuple[str, ...]]] = {
    # Cell, position of each Keras gate in ONNX (LSTM: i, o, f, c), default activations.
    "RNN": ("simple_rnn", (0,), ("Tanh",)),
    "GRU": ("gru", (0, 1, 2), ("Sigmoid", "Tanh")),
    "LSTM": ("lstm", (0, 2, 3, 1), ("Sigmoid", "Tanh", "Tanh")),
}
_ACTIVATIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
_ADVICE = "Export the layer without it."
_PEEPHOLES = 7


def append_recurrent(layer: OnnxLayer) -> tuple[str, ...]:
    """Append all directions; the outputs are all states (steps, directions, 1, units) and the last.

    The state of an LSTM's cell cannot leave, and every call starts from zero.
    """
    kind, _, defaults = _CELLS[layer.node.kind]
    layer.require(input_forget=0, clip=None, activation_alpha=None, advice=_ADVICE)
    _require_zero_start(layer)
    for name in layer.node.outputs[2:]:
        if name in layer.scope.used:
            raise layer.refuse("the state of its cell as an output", _ADVICE)
    directions = {"forward": [1], "reverse": [-1], "bidirectional": [1, -1]}
    steps = directions[layer.attribute("direction", "forward")]
    names = list(layer.attribute("activations", defaults * len(steps)))
    names = [name.decode() if isinstance(name, bytes) else name for name in names]
    if len(names) != len(defaults) * len(steps):
        raise layer.refuse(f"activations {names}", "Name one per gate and direction.")
    sequence = _sequence(layer)
    results = []
    for number, step in enumerate(steps):
        chosen = names[number * len(defaults) : (number + 1) * len(defaults)]
        cell = _cell(layer, kind, number, chosen)
        walked = layer.view(sequence, lambda index, step=step: index[::step])  # type: ignore[misc]
        results.append((layer.add(cell, walked), step))
    return _outputs(layer, results)


def _require_zero_start(layer: OnnxLayer) -> None:
    """Inputs are X, W, R, B, lengths, initial state, initial cell, peepholes."""
    if layer.has(4) or layer.has(_PEEPHOLES):
        raise layer.refuse("lengths or peepholes", _ADVICE)
    for position in (5, 6):
        if layer.has(position) and (
            not layer.is_constant(position) or layer.constant(position).any()
        ):
            advice = "Export it with a zero initial state, and without it as an input."
            raise layer.refuse("an initial state", advice)


def _sequence(layer: OnnxLayer) -> str:
    """Return the first input as (steps, features)."""
    shape, batch = layer.shape(), 0 if layer.attribute("layout", 0) else 1
    if len(shape) != 3 or shape[batch] != 1:
        raise layer.refuse(f"an input of shape {shape}", "Use a batch of one.")
    return layer.view(layer.value(), lambda index: index.squeeze(batch))


def _cell(
    layer: OnnxLayer,
    kind: Literal["simple_rnn", "gru", "lstm"],
    number: int,
    names: Sequence[str],
) -> Recurrent:
    unknown = [name for name in names if name not in _ACTIVATIONS]
    if unknown or len(set(names[1:])) > 1:
        advice = f"Use {', '.join(_ACTIVATIONS)}, and the same one for candidate and cell."
        raise layer.refuse(f"activations {list(names)}", advice)
    weight, recurrent = (layer.constant(place)[number] for place in (1, 2))
    units = recurrent.shape[1]
    order = _CELLS[layer.node.kind][1]
    biases = np.zeros((2, len(order) * units))
    if layer.has(3):
        biases = layer.constant(3)[number].reshape(2, -1)
    first, second = (_ordered(row, order, units) for row in biases)
    after = kind == "gru" and bool(layer.attribute("linear_before_reset", 0))
    return Recurrent(
        kind,
        kernel=_ordered(weight, order, units).T,
        recurrent=_ordered(recurrent, order, units).T,
        bias=np.stack([first, second]) if after else first + second,
        return_sequences=True,
        reset_after=after,
        activation=_ACTIVATIONS[names[-1]],
        recurrent_activation=_ACTIVATIONS[names[0]] if kind != "simple_rnn" else "none",
    )


def _ordered(array: Array, order: Sequence[int], units: int) -> Array:
    gates = array.reshape(len(order), units, *array.shape[1:])
    return gates[list(order)].reshape(array.shape)


def _outputs(layer: OnnxLayer, results: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    draft, used = layer.draft, layer.scope.used
    swapped = bool(layer.attribute("layout", 0))
    wanted = [name in used for name in layer.node.outputs[:2]] + [False, False]
    every = last = results[0][0]
    if wanted[0]:
        parts = [
            layer.view(value, lambda index, step=step: index[::step, None, None])  # type: ignore[misc]
            for value, step in results
        ]
        every = draft.join(parts, 1, layer.name)
        if swapped:
            every = layer.view(every, lambda index: index.transpose(2, 0, 1, 3))
    if wanted[1]:
        parts = [layer.view(value, lambda index: index[-1][None, None]) for value, _ in results]
        last = draft.join(parts, 0, layer.name)
        if swapped:
            last = layer.view(last, lambda index: index.transpose(1, 0, 2))
    return every, last

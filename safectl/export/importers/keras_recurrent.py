"""Keras recurrent layers: `SimpleRNN`, `GRU`, `LSTM`, and both directions of one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from safectl.export.importers.keras_layer import KerasLayer
from safectl.export.importers.layers import Activation, Affine, Combine, Recurrent, Shape
from safectl.export.kinds.activation import SLOPED

_CELLS: dict[str, tuple[Literal["simple_rnn", "gru", "lstm"], int]] = {
    "SimpleRNN": ("simple_rnn", 1),
    "GRU": ("gru", 3),
    "LSTM": ("lstm", 4),
}
_ADVICE = "Build the layer without it, and save the model again."


def append_recurrent(layer: KerasLayer, inputs: Sequence[str]) -> str:
    """Append a recurrent layer; its input is walked backwards where the layer says so."""
    if len(inputs) != 1:
        raise layer.refuse("an initial state", "Start from zero, or use stateful=True.")
    layer.require(return_state=False, time_major=False, advice=_ADVICE)
    (value,), draft = inputs, layer.draft
    if layer.config.get("go_backwards", False):
        value = draft.view(value, layer.name, lambda index: index[::-1])
    return draft.add(_cell(layer, draft.shape(value)[-1]), layer.name, value)


def append_bidirectional(layer: KerasLayer, inputs: Sequence[str]) -> str:
    """Append a layer and its mirror, and merge what both return."""
    draft, inner = layer.draft, layer.config["layer"]
    kind, options = inner["class_name"], inner["config"]
    if kind not in _CELLS:
        raise layer.refuse(f"around {kind}", f"Use one of {', '.join(_CELLS)}.")
    back = (layer.config.get("backward_layer") or inner)["config"]
    back = {**back, "go_backwards": not options.get("go_backwards", False)}
    results = []
    for direction, config in (("forward", options), ("backward", back)):
        name = f"{direction}_{str(options['name']).removeprefix('forward_')}"
        part = replace(layer, kind=kind).within(f"{direction}_layer", name=name, config=config)
        results.append(append_recurrent(part, inputs))
    if options.get("return_sequences", False):
        results[1] = draft.view(results[1], layer.name, lambda index: index[::-1])
    match layer.config.get("merge_mode", "concat"):
        case "concat":
            return draft.join(results, -1, layer.name)
        case "mul":
            return draft.add(Combine("multiply"), layer.name, *results)
        case "sum" | "ave" as mode:
            total = draft.add(Combine("add"), layer.name, *results)
            half = Affine(np.full(1, 0.5), np.zeros(1))
            return total if mode == "sum" else draft.add(half, layer.name, total)
        case other:
            raise layer.refuse(f"merge_mode {other!r}", "Use concat, sum, ave or mul.")


def _cell(layer: KerasLayer, features: int) -> Recurrent:
    kind, gates = _CELLS[layer.kind]
    activation, gate = layer.activation(), Activation("none")
    if kind != "simple_rnn":
        gate = layer.activation("recurrent_activation")
    slopes = {act.alpha for act in (activation, gate) if act.kind in SLOPED}
    if len(slopes) > 1:
        raise layer.refuse(f"activations {activation.kind} and {gate.kind}", "Use one of them.")
    units = int(layer.config["units"])
    reset_after = kind == "gru" and bool(layer.config.get("reset_after", False))
    width = gates * units
    bias_shape: Shape = (2, width) if reset_after else (width,)
    shapes: dict[str, Shape] = {"kernel": (features, width), "recurrent_kernel": (units, width)}
    has_bias = layer.config.get("use_bias", True)
    if has_bias:
        shapes["bias"] = bias_shape
    found = layer.within("cell").weights(**shapes)
    return Recurrent(
        kind,
        kernel=found[0],
        recurrent=found[1],
        bias=found[2] if has_bias else np.zeros(bias_shape),
        return_sequences=bool(layer.config.get("return_sequences", False)),
        stateful=bool(layer.config.get("stateful", False)),
        reset_after=reset_after,
        activation=activation.kind,
        recurrent_activation=gate.kind,
        alpha=(slopes.pop() if slopes else None) or 0.0,
    )

"""Scales and activations as parts of the layers beside them: batch normalisation costs nothing."""

from collections import Counter
from dataclasses import replace

from safectl.export.importers.layers import (
    IDENTITY,
    Activation,
    Affine,
    Convolution,
    Dense,
    Layer,
)
from safectl.export.importers.steps import Plan, Step


def fused(plan: Plan) -> Plan:
    """Return the same network with fewer steps.

    An affine layer behind a dense layer or a convolution goes into its weights, and so does one
    before a dense layer; an activation behind either becomes the layer's own.
    """
    reads = Counter(source.value for step in plan.steps for source in step.sources)
    reads.update(source.value for source in plan.outputs)
    steps: list[Step] = []
    position: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for step in plan.steps:
        step = _renamed(step, renamed)
        only = step.sources[0]
        place = position.get(only.value) if only.index is None and reads[only.value] == 1 else None
        earlier = None if place is None else steps[place]
        joined = None if earlier is None else _joined(earlier, step)
        if joined is None or place is None or earlier is None:
            position[step.output] = len(steps)
            steps.append(step)
            continue
        steps[place] = replace(earlier, layer=joined)
        renamed[step.output] = earlier.output
        reads[earlier.output] = reads[step.output]
    outputs = tuple(replace(x, value=renamed.get(x.value, x.value)) for x in plan.outputs)
    return Plan(tuple(steps), outputs)


def _renamed(step: Step, renamed: dict[str, str]) -> Step:
    sources = tuple(replace(x, value=renamed.get(x.value, x.value)) for x in step.sources)
    return replace(step, sources=sources)


def _joined(earlier: Step, step: Step) -> Layer | None:
    """Return the layer that does what both do, if there is one."""
    match earlier.layer, step.layer:
        case ((Dense() | Convolution() as layer), Affine() as scale):
            if layer.activation == IDENTITY and len(scale.gain) in (1, len(layer.bias)):
                gain = scale.gain.reshape(-1, *([1] * (layer.weight.ndim - 1)))
                bias = layer.bias * scale.gain + scale.shift
                return replace(layer, weight=layer.weight * gain, bias=bias, step=None)
        case ((Dense() | Convolution() as layer), Activation() as activation):
            if layer.activation == IDENTITY and activation.kind != "softmax":
                return replace(layer, activation=activation)
        case Affine() as scale, Dense() as layer:
            if len(scale.gain) in (1, layer.weight.shape[1]):
                bias = layer.bias + (layer.weight * scale.shift).sum(axis=1)
                return replace(layer, weight=layer.weight * scale.gain, bias=bias, step=None)
        case _:
            pass
    return None

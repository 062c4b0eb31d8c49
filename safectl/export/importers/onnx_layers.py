"""ONNX operators without windows and without time, as layers of a graph."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from safectl.export.importers.layers import (
    Activation,
    Affine,
    Clip,
    Combine,
    Dense,
    LayerNorm,
)
from safectl.export.importers.onnx_files import axes_of
from safectl.export.importers.onnx_layer import OnnxLayer

Append = Callable[[OnnxLayer], tuple[str, ...]]
_ONE, _NONE = np.ones(1), np.zeros(1)
_SELU = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}
_RELATIVE_TOLERANCE = 1e-6
"""Float32 attributes repeat a decimal constant of the standard to 24 bits."""


def _gemm(layer: OnnxLayer) -> tuple[str, ...]:
    layer.require(transA=0, advice="Transpose the input outside the model.")
    weight = layer.constant(1)
    weight = weight if layer.attribute("transB", 0) else weight.T
    weight = weight * float(layer.attribute("alpha", 1.0))
    bias = layer.constant(2) * float(layer.attribute("beta", 1.0)) if layer.has(2) else _NONE
    if bias.size not in (1, bias.shape[-1]) or bias.size not in (1, len(weight)):
        advice = "Give one number per column of the result."
        raise layer.refuse(f"C of shape {bias.shape}", advice)
    bias = np.broadcast_to(bias.reshape(-1), (len(weight),))
    return (layer.add(Dense(weight, bias), layer.value()),)


def _mat_mul(layer: OnnxLayer) -> tuple[str, ...]:
    weight = layer.constant(1)
    if weight.ndim != 2:
        raise layer.refuse(f"a weight of shape {weight.shape}", "Multiply by a matrix.")
    return (layer.add(Dense(weight.T, np.zeros(weight.shape[1])), layer.value()),)


def _add(layer: OnnxLayer) -> tuple[str, ...]:
    if layer.is_constant(0) or layer.is_constant(1):
        constant = 0 if layer.is_constant(0) else 1
        return (layer.affine(layer.value(1 - constant), _ONE, layer.constant(constant)),)
    return (_combine(layer, Combine("add"), 0, 1),)


def _sub(layer: OnnxLayer) -> tuple[str, ...]:
    if layer.is_constant(0):
        return (layer.affine(layer.value(1), -_ONE, layer.constant(0)),)
    if layer.is_constant(1):
        return (layer.affine(layer.value(), _ONE, -layer.constant(1)),)
    negative = layer.affine(layer.value(1), -_ONE, _NONE)
    return (_combine_values(layer, Combine("add"), layer.value(), negative),)


def _mul(layer: OnnxLayer) -> tuple[str, ...]:
    if layer.is_constant(0) or layer.is_constant(1):
        constant = 0 if layer.is_constant(0) else 1
        return (layer.affine(layer.value(1 - constant), layer.constant(constant), _NONE),)
    return (_combine(layer, Combine("multiply"), 0, 1),)


def _div(layer: OnnxLayer) -> tuple[str, ...]:
    return (layer.affine(layer.value(), 1.0 / layer.constant(1).astype(np.float64), _NONE),)


def _neg(layer: OnnxLayer) -> tuple[str, ...]:
    return (layer.affine(layer.value(), -_ONE, _NONE),)


def _sum(layer: OnnxLayer) -> tuple[str, ...]:
    total = layer.value()
    for position in range(1, len(layer.node.inputs)):
        total = _combine_values(layer, Combine("add"), total, layer.value(position))
    return (total,)


def _combine(layer: OnnxLayer, combine: Combine, first: int, second: int) -> str:
    return _combine_values(layer, combine, layer.value(first), layer.value(second))


def _combine_values(layer: OnnxLayer, combine: Combine, *values: str) -> str:
    full = np.broadcast_shapes(*(layer.draft.shape(value) for value in values))
    same = [
        value
        if layer.draft.shape(value) == full
        else layer.view(value, lambda index: np.broadcast_to(index, full))
        for value in values
    ]
    return layer.add(combine, *same)


def _simple(kind: str) -> Append:
    return lambda layer: (layer.add(Activation(kind), layer.value()),)


def _sloped(kind: str, default: float) -> Append:
    def append(layer: OnnxLayer) -> tuple[str, ...]:
        alpha = float(layer.attribute("alpha", default))
        return (layer.add(Activation(kind, alpha), layer.value()),)

    return append


def _selu(layer: OnnxLayer) -> tuple[str, ...]:
    for name, wanted in _SELU.items():
        if not math.isclose(layer.attribute(name, wanted), wanted, rel_tol=_RELATIVE_TOLERANCE):
            raise layer.refuse(
                f"{name}={layer.attribute(name, wanted)}", "Use the usual constants."
            )
    return (layer.add(Activation("selu"), layer.value()),)


def _hard_sigmoid(layer: OnnxLayer) -> tuple[str, ...]:
    slope, middle = layer.attribute("alpha", 0.2), layer.attribute("beta", 0.5)
    scaled = layer.affine(layer.value(), np.array(slope), np.array(middle))
    return (layer.add(Clip(0.0, 1.0), scaled),)


def _hard_swish(layer: OnnxLayer) -> tuple[str, ...]:
    gate = layer.add(Activation("hard_sigmoid_v3"), layer.value())
    return (layer.add(Combine("multiply"), layer.value(), gate),)


def _swish(layer: OnnxLayer) -> tuple[str, ...]:
    layer.require(alpha=1.0, advice="Use the swish with slope one.")
    return (layer.add(Activation("swish"), layer.value()),)


def _gelu(layer: OnnxLayer) -> tuple[str, ...]:
    kind = "gelu_tanh" if layer.attribute("approximate", "none") == "tanh" else "gelu"
    return (layer.add(Activation(kind), layer.value()),)


def _clip(layer: OnnxLayer) -> tuple[str, ...]:
    ends = []
    for position, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        given = layer.constant(position).item() if layer.has(position) else None
        ends.append(float(layer.attribute(name, default) if given is None else given))
    low, high = ends
    if low == 0.0 and high in (6.0, np.inf):
        return (layer.add(Activation("relu6" if high == 6.0 else "relu"), layer.value()),)
    return (layer.add(Clip(low, high), layer.value()),)


def _p_relu(layer: OnnxLayer) -> tuple[str, ...]:
    """relu(x) - slope relu(-x)."""
    positive = layer.add(Activation("relu"), layer.value())
    negative = layer.affine(layer.value(), -_ONE, _NONE)
    negative = layer.affine(layer.add(Activation("relu"), negative), -layer.constant(1), _NONE)
    return (layer.add(Combine("add"), positive, negative),)


def _softmax(layer: OnnxLayer) -> tuple[str, ...]:
    value, shape, before_13 = layer.value(), layer.shape(), layer.scope.opset < 13
    (axis,) = axes_of(shape, [layer.attribute("axis", 1 if before_13 else -1)])
    if not before_13:
        return (layer.along(Activation("softmax"), value, axis),)
    rows = math.prod(shape[:axis])  # then all axes from this one on were one
    flat = layer.draft.reshape(value, (rows, -1), layer.name)
    return (layer.draft.reshape(layer.add(Activation("softmax"), flat), shape, layer.name),)


def _batch_normalization(layer: OnnxLayer) -> tuple[str, ...]:
    layer.require(training_mode=0, advice="Export the model in evaluation mode.")
    scale, shift, mean, variance = (
        layer.constant(position).astype(np.float64) for position in (1, 2, 3, 4)
    )
    gain = scale / np.sqrt(variance + float(layer.attribute("epsilon", 1e-5)))
    return (layer.along(Affine(gain, shift - mean * gain), layer.value(), 1),)


def _layer_normalization(layer: OnnxLayer) -> tuple[str, ...]:
    shape = layer.shape()
    (axis,) = axes_of(shape, [layer.attribute("axis", -1)])
    width = math.prod(shape[axis:])
    gain = np.broadcast_to(layer.constant(1), shape[axis:]).reshape(-1)
    shift = layer.constant(2) if layer.has(2) else _NONE
    shift = np.broadcast_to(shift, shape[axis:]).reshape(-1)
    norm = LayerNorm(gain, shift, float(layer.attribute("epsilon", 1e-5)))
    flat = layer.draft.reshape(layer.value(), (*shape[:axis], width), layer.name)
    return (layer.draft.reshape(layer.add(norm, flat), shape, layer.name),)


def _scaler(layer: OnnxLayer) -> tuple[str, ...]:
    """Scale x - offset, the normaliser of scikit-learn."""
    width = layer.shape()[-1]
    offset, scale = (
        np.broadcast_to(np.asarray(layer.attribute(name, default), np.float64), (width,))
        for name, default in (("offset", 0.0), ("scale", 1.0))
    )
    return (layer.add(Affine(scale, -offset * scale), layer.value()),)


def _pass(layer: OnnxLayer) -> tuple[str, ...]:
    if layer.node.kind == "Dropout" and layer.has(2) and bool(layer.constant(2).item()):
        raise layer.refuse("training_mode", "Export the model in evaluation mode.")
    if layer.node.kind == "Cast" and layer.attribute("to", 0) not in (1, 10, 11, 16):
        raise layer.refuse("to no floating-point number", "Keep the network in float32.")
    return (layer.value(),)


LAYERS: Mapping[str, Append] = {
    "Add": _add,
    "BatchNormalization": _batch_normalization,
    "Cast": _pass,
    "Clip": _clip,
    "Div": _div,
    "Dropout": _pass,
    "Elu": _sloped("elu", 1.0),
    "Exp": _simple("exponential"),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _pass,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _sloped("leaky_relu", 0.01),
    "MatMul": _mat_mul,
    "Mul": _mul,
    "Neg": _neg,
    "PRelu": _p_relu,
    "Relu": _simple("relu"),
    "Selu": _selu,
    "Sigmoid": _simple("sigmoid"),
    "Softmax": _softmax,
    "Softplus": _simple("softplus"),
    "Softsign": _simple("softsign"),
    "Sub": _sub,
    "Sum": _sum,
    "Swish": _swish,
    "Tanh": _simple("tanh"),
    "ai.onnx.ml.Scaler": _scaler,
}
"""What each operator appends to the graph: the values of its outputs."""

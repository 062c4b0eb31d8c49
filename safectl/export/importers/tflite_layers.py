"""TFLite operators as layers of a graph, in real numbers."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from safectl.export.importers.layers import (
    UNPADDED,
    Activation,
    Array,
    Clip,
    Combine,
    Convolution,
    Dense,
    Layer,
    Pool,
    Recurrent,
)
from safectl.export.importers.shapes import same_padding
from safectl.export.importers.tflite_layer import TfliteLayer
from safectl.export.importers.windows import pad, reduce

Append = Callable[[TfliteLayer], str]
_ONE, _NONE = np.ones(1), np.zeros(1)
_SAME = 0


def _fully_connected(layer: TfliteLayer) -> str:
    import tflite

    options = layer.options(tflite.FullyConnectedOptions)
    weight = layer.constant(1)
    bias = layer.constant(2) if layer.has(2) else np.zeros(len(weight))
    if options.WeightsFormat() != 0:
        raise layer.refuse("shuffled weights", "Convert without them.")
    rows = layer.draft.reshape(layer.value(), (-1, weight.shape[1]), layer.name)
    result = layer.activate(
        layer.add(Dense(weight, bias, step=layer.steps(1, len(weight))), rows),
        options.FusedActivationFunction(),
    )
    return layer.draft.reshape(result, layer.output.shape, layer.name)


def _conv(layer: TfliteLayer) -> str:
    import tflite

    weight = layer.constant(1)
    options, channels = layer.options(tflite.Conv2DOptions), layer.shape()[-1]
    return _slide(layer, weight, options, channels // weight.shape[3])


def _depthwise(layer: TfliteLayer) -> str:
    import tflite

    options = layer.options(tflite.DepthwiseConv2DOptions)
    return _slide(layer, layer.constant(1).transpose(3, 1, 2, 0), options, layer.shape()[-1])


def _slide(layer: TfliteLayer, weight: Array, options: Any, groups: int) -> str:  # noqa: ANN401
    bias = layer.constant(2) if layer.has(2) else np.zeros(len(weight))
    image, window = _image(layer), (weight.shape[1], weight.shape[2])
    stride = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    padding = UNPADDED
    if options.Padding() == _SAME:
        padding = same_padding(layer.draft.shape(image), window, stride, dilation)
    step = layer.steps(1, len(weight))
    convolution = Convolution(weight, bias, stride, padding, dilation, groups, step=step)
    result = layer.activate(layer.add(convolution, image), options.FusedActivationFunction())
    return layer.view(result, lambda index: index[None])


def _pool(kind: Literal["max", "average"]) -> Append:
    def append(layer: TfliteLayer) -> str:
        import tflite

        options, image = layer.options(tflite.Pool2DOptions), _image(layer)
        window = (options.FilterHeight(), options.FilterWidth())
        stride = (options.StrideH(), options.StrideW())
        padding = UNPADDED
        if options.Padding() == _SAME:
            padding = same_padding(layer.draft.shape(image), window, stride)
        pooled = layer.add(Pool(kind, window, stride, padding), image)
        result = layer.activate(pooled, options.FusedActivationFunction())
        return layer.view(result, lambda index: index[None])

    return append


def _image(layer: TfliteLayer) -> str:
    shape = layer.shape()
    if len(shape) != 4 or shape[0] != 1:
        raise layer.refuse(f"an input of shape {shape}", "Use a batch of one.")
    return layer.view(layer.value(), lambda index: index[0])


def _reduce(kind: Literal["max", "average"]) -> Append:
    def append(layer: TfliteLayer) -> str:
        rank = len(layer.shape())
        axes = sorted({int(axis) % rank for axis in layer.constant(1).reshape(-1)})
        pooled = reduce(layer.draft, layer.value(), axes, kind, layer.name)
        return layer.draft.reshape(pooled, layer.output.shape, layer.name)

    return append


def _pad(layer: TfliteLayer) -> str:
    pads = layer.constant(1).astype(int)
    if pads.shape != (4, 2) or pads[[0, 3]].any():
        raise layer.refuse(f"padding {pads.tolist()}", "Pad height and width only.")
    (top, bottom), (left, right) = pads[1:3].tolist()
    padded = pad(layer.draft, _image(layer), ((top, bottom), (left, right)), layer.name)
    return layer.view(padded, lambda index: index[None])


def _add(layer: TfliteLayer) -> str:
    import tflite

    fused = layer.options(tflite.AddOptions).FusedActivationFunction()
    if layer.is_constant(0) or layer.is_constant(1):
        constant = 0 if layer.is_constant(0) else 1
        total = layer.affine(layer.value(1 - constant), _ONE, layer.constant(constant))
        return layer.activate(total, fused)
    return layer.activate(layer.add(Combine("add"), layer.value(), layer.value(1)), fused)


def _sub(layer: TfliteLayer) -> str:
    import tflite

    fused = layer.options(tflite.SubOptions).FusedActivationFunction()
    if layer.is_constant(0):
        return layer.activate(layer.affine(layer.value(1), -_ONE, layer.constant(0)), fused)
    if layer.is_constant(1):
        return layer.activate(layer.affine(layer.value(), _ONE, -layer.constant(1)), fused)
    negative = layer.affine(layer.value(1), -_ONE, _NONE)
    return layer.activate(layer.add(Combine("add"), layer.value(), negative), fused)


def _mul(layer: TfliteLayer) -> str:
    import tflite

    fused = layer.options(tflite.MulOptions).FusedActivationFunction()
    if layer.is_constant(0) or layer.is_constant(1):
        constant = 0 if layer.is_constant(0) else 1
        scaled = layer.affine(layer.value(1 - constant), layer.constant(constant), _NONE)
        return layer.activate(scaled, fused)
    return layer.activate(layer.add(Combine("multiply"), layer.value(), layer.value(1)), fused)


def _concatenation(layer: TfliteLayer) -> str:
    import tflite

    options = layer.options(tflite.ConcatenationOptions)
    values = [layer.value(position) for position in range(len(layer.operator.inputs))]
    joined = layer.draft.join(values, options.Axis(), layer.name)
    return layer.activate(joined, options.FusedActivationFunction())


def _plain(function: Layer) -> Append:
    return lambda layer: layer.add(function, layer.value())


def _softmax(layer: TfliteLayer) -> str:
    import tflite

    beta = layer.options(tflite.SoftmaxOptions).Beta()
    scaled = layer.value() if beta == 1.0 else layer.affine(layer.value(), beta * _ONE, _NONE)
    return layer.add(Activation("softmax"), scaled)


def _leaky_relu(layer: TfliteLayer) -> str:
    import tflite

    alpha = layer.options(tflite.LeakyReluOptions).Alpha()
    return layer.add(Activation("leaky_relu", alpha), layer.value())


def _gelu(layer: TfliteLayer) -> str:
    import tflite

    is_near = layer.options(tflite.GeluOptions).Approximate()
    return layer.add(Activation("gelu_tanh" if is_near else "gelu"), layer.value())


def _hard_swish(layer: TfliteLayer) -> str:
    gate = layer.add(Activation("hard_sigmoid_v3"), layer.value())
    return layer.add(Combine("multiply"), layer.value(), gate)


def _p_relu(layer: TfliteLayer) -> str:
    """relu(x) - slope relu(-x)."""
    positive = layer.add(Activation("relu"), layer.value())
    negative = layer.add(Activation("relu"), layer.affine(layer.value(), -_ONE, _NONE))
    return layer.add(Combine("add"), positive, layer.affine(negative, -layer.constant(1), _NONE))


def _pass(layer: TfliteLayer) -> str:
    return layer.value()


def _reshape(layer: TfliteLayer) -> str:
    """The file states the shape of every result, so what it was computed from does not matter."""
    return layer.draft.reshape(layer.value(), layer.output.shape, layer.name)


def _transpose(layer: TfliteLayer) -> str:
    order = layer.constant(1).astype(int).reshape(-1).tolist()
    return layer.view(layer.value(), lambda index: index.transpose(order))


def _strided_slice(layer: TfliteLayer) -> str:
    import tflite

    options = layer.options(tflite.StridedSliceOptions)
    if options.EllipsisMask() or options.NewAxisMask():
        raise layer.refuse("an ellipsis or a new axis", "Slice plainly.")
    starts, stops, steps = (layer.constant(i).astype(int).tolist() for i in (1, 2, 3))
    cuts: list[slice | int] = []
    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        if options.ShrinkAxisMask() >> axis & 1:
            cuts.append(start)
            continue
        begin = None if options.BeginMask() >> axis & 1 else start
        cuts.append(slice(begin, None if options.EndMask() >> axis & 1 else stop, step))
    return layer.view(layer.value(), lambda index: index[tuple(cuts)])


def _lstm(layer: TfliteLayer) -> str:
    """Inputs 1-4, 5-8, 12-15: kernel, recurrent kernel, bias of the gates i, f, g, o.

    The interpreter of TFLite keeps the state from call to call, and so does the program.
    """
    import tflite

    options = layer.options(tflite.UnidirectionalSequenceLSTMOptions)
    extra = [place for place in (9, 10, 11, 16, 17, 20, 21, 22, 23) if layer.has(place)]
    if extra or options.ProjClip() or not layer.has(1):
        raise layer.refuse("peepholes, projection or layer norm", "Use a plain LSTM.")
    kernel, recurrent, bias = (
        np.concatenate([layer.constant(start + gate) for gate in range(4)]) for start in (1, 5, 12)
    )
    if options.FusedActivationFunction() != 4:
        raise layer.refuse("an activation other than tanh", "Use tanh.")
    batch = 1 if options.TimeMajor() else 0
    steps = layer.view(layer.value(), lambda index: index.squeeze(batch))
    cell = Recurrent(
        "lstm",
        kernel.T,
        recurrent.T,
        bias,
        return_sequences=True,
        stateful=True,
        cell_limit=options.CellClip() or None,
    )
    return layer.draft.reshape(layer.add(cell, steps), layer.output.shape, layer.name)


LAYERS: Mapping[str, Append] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool("average"),
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _pass,
    "ELU": _plain(Activation("elu", 1.0)),
    "EXP": _plain(Activation("exponential")),
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": _fully_connected,
    "GELU": _gelu,
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _plain(Activation("sigmoid")),
    "MAX_POOL_2D": _pool("max"),
    "MEAN": _reduce("average"),
    "MUL": _mul,
    "NEG": lambda layer: layer.affine(layer.value(), -_ONE, _NONE),
    "PAD": _pad,
    "PRELU": _p_relu,
    "QUANTIZE": _pass,
    "REDUCE_MAX": _reduce("max"),
    "RELU": _plain(Activation("relu")),
    "RELU6": _plain(Activation("relu6")),
    "RELU_0_TO_1": _plain(Clip(0.0, 1.0)),
    "RELU_N1_TO_1": _plain(Clip(-1.0, 1.0)),
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _sub,
    "TANH": _plain(Activation("tanh")),
    "TRANSPOSE": _transpose,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
"""What each operator appends to the graph."""

"""Keras layers without windows and without time, as layers of a graph."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from safectl.export.importers.keras_layer import KerasLayer
from safectl.export.importers.keras_recurrent import append_bidirectional, append_recurrent
from safectl.export.importers.keras_windows import WINDOWED
from safectl.export.importers.layers import Activation, Affine, Array, Clip, Combine, Dense
from safectl.export.importers.layers import LayerNorm as LayerNormalization

Append = Callable[[KerasLayer, Sequence[str]], str]
_ONE, _NONE = np.ones(1), np.zeros(1)
_NORMALIZATION_EPSILON = 1e-7
"""`keras.backend.epsilon()`: least standard deviation of `Normalization`."""


def _dense(layer: KerasLayer, inputs: Sequence[str]) -> str:
    width = layer.draft.shape(inputs[0])[-1]
    units = int(layer.config["units"])
    if layer.config.get("use_bias", True):
        kernel, bias = layer.weights(kernel=(width, units), bias=(units,))
    else:
        (kernel,), bias = layer.weights(kernel=(width, units)), np.zeros(units)
    return layer.activate(layer.draft.add(Dense(kernel.T, bias), layer.name, inputs[0]))


def _activation(layer: KerasLayer, inputs: Sequence[str]) -> str:
    return layer.activate(inputs[0])


def _function(kind: str, option: str, default: float) -> Append:
    def append(layer: KerasLayer, inputs: Sequence[str]) -> str:
        alpha = layer.config.get("negative_slope", layer.config.get(option, default))
        return layer.draft.add(Activation(kind, float(alpha)), layer.name, inputs[0])

    return append


def _relu(layer: KerasLayer, inputs: Sequence[str]) -> str:
    advice = "Only max_value and negative_slope without max_value can be imported."
    layer.require(threshold=0.0, advice=advice)
    slope, top = layer.config.get("negative_slope") or 0.0, layer.config.get("max_value")
    if top is not None:
        layer.require(negative_slope=0.0, advice=advice)
        if float(top) == 6.0:
            return layer.draft.add(Activation("relu6"), layer.name, inputs[0])
        return layer.draft.add(Clip(0.0, float(top)), layer.name, inputs[0])
    activation = Activation("leaky_relu", float(slope)) if slope else Activation("relu")
    return layer.draft.add(activation, layer.name, inputs[0])


def _prelu(layer: KerasLayer, inputs: Sequence[str]) -> str:
    """relu(x) - alpha relu(-x), with an alpha per channel."""
    draft, (value,) = layer.draft, inputs
    shape = draft.shape(value)
    shared = [int(axis) - 1 for axis in layer.config.get("shared_axes") or ()]
    alpha_shape = tuple(1 if axis in shared else size for axis, size in enumerate(shape))
    (alpha,) = layer.weights(alpha=alpha_shape)
    if alpha.size != shape[-1]:
        raise layer.refuse("an alpha per pixel", "Share it: shared_axes=[1, 2].")
    positive = draft.add(Activation("relu"), layer.name, value)
    negative = draft.add(Affine(-_ONE, _NONE), layer.name, value)
    negative = draft.add(Activation("relu"), layer.name, negative)
    negative = draft.add(Affine(-alpha.reshape(-1), np.zeros(alpha.size)), layer.name, negative)
    return draft.add(Combine("add"), layer.name, positive, negative)


def _softmax(layer: KerasLayer, inputs: Sequence[str]) -> str:
    _last_axis(layer, inputs[0])
    return layer.draft.add(Activation("softmax"), layer.name, inputs[0])


def _last_axis(layer: KerasLayer, value: str) -> None:
    axes = layer.config.get("axis", -1)
    axes = axes if isinstance(axes, list) else [axes]
    if axes not in ([-1], [len(layer.draft.shape(value))]):
        raise layer.refuse(f"axis {axes}", "Only the last axis can be imported.")


def _scale_and_centre(
    layer: KerasLayer, value: str, *more: str
) -> tuple[Array, Array, list[Array]]:
    """Return gamma and beta, or ones and zeros, and the named further weights."""
    _last_axis(layer, value)
    shape = layer.draft.shape(value)[-1:]
    gains = ["gamma"] if layer.config.get("scale", True) else []
    shifts = ["beta"] if layer.config.get("center", True) else []
    found = layer.weights(**dict.fromkeys((*gains, *shifts, *more), shape))
    gain = found.pop(0) if gains else np.ones(shape)
    shift = found.pop(0) if shifts else np.zeros(shape)
    return gain, shift, found


def _batch_normalization(layer: KerasLayer, inputs: Sequence[str]) -> str:
    gain, shift, rest = _scale_and_centre(layer, inputs[0], "moving_mean", "moving_variance")
    mean, variance = (weight.astype(np.float64) for weight in rest)
    gain = gain / np.sqrt(variance + float(layer.config["epsilon"]))
    return layer.draft.add(Affine(gain, shift - mean * gain), layer.name, inputs[0])


def _layer_normalization(layer: KerasLayer, inputs: Sequence[str]) -> str:
    layer.require(rms_scaling=False, advice="Use the plain LayerNormalization.")
    gain, shift, _ = _scale_and_centre(layer, inputs[0])
    epsilon = float(layer.config["epsilon"])
    return layer.draft.add(LayerNormalization(gain, shift, epsilon), layer.name, inputs[0])


def _rescaling(layer: KerasLayer, inputs: Sequence[str]) -> str:
    given = [np.asarray(layer.config[option], np.float64) for option in ("scale", "offset")]
    width = layer.draft.shape(inputs[0])[-1] if given[0].size + given[1].size > 2 else 1
    gain, shift = (np.broadcast_to(array, (width,)) for array in given)
    return layer.draft.add(Affine(gain, shift), layer.name, inputs[0])


def _normalization(layer: KerasLayer, inputs: Sequence[str]) -> str:
    layer.require(invert=False, advice="Import the forward normalisation.")
    _last_axis(layer, inputs[0])
    width = layer.draft.shape(inputs[0])[-1]
    if layer.config.get("mean") is None:
        mean, variance, _ = layer.weights(mean=(width,), variance=(width,), count=())
    else:
        mean, variance = (
            np.broadcast_to(np.asarray(layer.config[option], np.float64).reshape(-1), (width,))
            for option in ("mean", "variance")
        )
    deviation = np.sqrt(variance.astype(np.float64))
    gain = 1.0 / np.maximum(deviation, _NORMALIZATION_EPSILON)
    return layer.draft.add(Affine(gain, -mean * gain), layer.name, inputs[0])


def _pass(layer: KerasLayer, inputs: Sequence[str]) -> str:
    """Layers that do nothing outside training."""
    del layer
    return inputs[0]


def _reshape(layer: KerasLayer, inputs: Sequence[str]) -> str:
    sizes = [int(size) for size in layer.config["target_shape"]]
    return layer.draft.reshape(inputs[0], sizes, layer.name)


def _flatten(layer: KerasLayer, inputs: Sequence[str]) -> str:
    layer.require(data_format="channels_last", advice="Save the model with channels last.")
    return layer.draft.reshape(inputs[0], (-1,), layer.name)


def _permute(layer: KerasLayer, inputs: Sequence[str]) -> str:
    order = [int(axis) - 1 for axis in layer.config["dims"]]
    return layer.draft.view(inputs[0], layer.name, lambda index: index.transpose(order))


def _repeat(layer: KerasLayer, inputs: Sequence[str]) -> str:
    count = int(layer.config["n"])
    if not 1 <= count <= 1024:
        raise layer.refuse(f"n={count}", "At most 1024 steps can be imported.")
    return layer.draft.view(inputs[0], layer.name, lambda index: np.tile(index, (count, 1)))


def _concatenate(layer: KerasLayer, inputs: Sequence[str]) -> str:
    axis = int(layer.config.get("axis", -1))
    if axis in (0, -1 - len(layer.draft.shape(inputs[0]))):
        raise layer.refuse("along the batch", "Join along another axis.")
    return layer.draft.join(inputs, axis - 1 if axis > 0 else axis, layer.name)


def _add(layer: KerasLayer, inputs: Sequence[str]) -> str:
    return layer.draft.add(Combine("add"), layer.name, *inputs)


def _multiply(layer: KerasLayer, inputs: Sequence[str]) -> str:
    return layer.draft.add(Combine("multiply"), layer.name, *inputs)


def _average(layer: KerasLayer, inputs: Sequence[str]) -> str:
    total = layer.draft.add(Combine("add"), layer.name, *inputs)
    return layer.draft.add(Affine(_ONE / len(inputs), _NONE), layer.name, total)


def _subtract(layer: KerasLayer, inputs: Sequence[str]) -> str:
    first, second = inputs
    second = layer.draft.add(Affine(-_ONE, _NONE), layer.name, second)
    return layer.draft.add(Combine("add"), layer.name, first, second)


LAYERS: Mapping[str, Append] = {
    "Activation": _activation,
    "ActivityRegularization": _pass,
    "Add": _add,
    "AlphaDropout": _pass,
    "Average": _average,
    "BatchNormalization": _batch_normalization,
    "Bidirectional": append_bidirectional,
    "Concatenate": _concatenate,
    "Dense": _dense,
    "Dropout": _pass,
    "ELU": _function("elu", "alpha", 1.0),
    "Flatten": _flatten,
    "GRU": append_recurrent,
    "GaussianDropout": _pass,
    "GaussianNoise": _pass,
    "Identity": _pass,
    "LSTM": append_recurrent,
    "LayerNormalization": _layer_normalization,
    "LeakyReLU": _function("leaky_relu", "alpha", 0.3),
    "Multiply": _multiply,
    "Normalization": _normalization,
    "PReLU": _prelu,
    "Permute": _permute,
    "ReLU": _relu,
    "RepeatVector": _repeat,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SimpleRNN": append_recurrent,
    "Softmax": _softmax,
    "SpatialDropout1D": _pass,
    "SpatialDropout2D": _pass,
    "Subtract": _subtract,
    **WINDOWED,
}
"""What each class of Keras layers appends to the graph."""

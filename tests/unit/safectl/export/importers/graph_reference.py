"""A graph of layers in float64 NumPy, written for clarity: the oracle of the importers."""

from math import erf

import numpy as np

from safectl.export.importers.graph import Graph
from safectl.export.importers.layers import (
    Activation,
    Affine,
    Clip,
    Combine,
    Convolution,
    Dense,
    Join,
    Layer,
    LayerNorm,
    Pool,
    Recurrent,
    View,
)

_SELU = (1.0507009873554805, 1.6732632423543772)


def run(graph: Graph, row: np.ndarray) -> np.ndarray:
    """Return the flattened outputs for one row of flattened inputs."""
    values, start = {}, 0
    for name in graph.inputs:
        size = int(np.prod(graph.shapes[name]))
        values[name] = row[start : start + size].astype(np.float64).reshape(graph.shapes[name])
        start += size
    for node in graph.nodes:
        values[node.output] = _layer(node.layer, [values[name] for name in node.inputs])
        assert values[node.output].shape == graph.shapes[node.output]
    return np.concatenate([values[name].reshape(-1) for name in graph.outputs])


def function(kind: str, x: np.ndarray, alpha: float | None = None) -> np.ndarray:
    sigmoid = 1.0 / (1.0 + np.exp(-x))
    exponential = np.exp(x - x.max(axis=-1, keepdims=True))
    expm1 = np.expm1(np.minimum(x, 0.0))
    return {
        "none": x,
        "relu": np.maximum(x, 0.0),
        "relu6": np.clip(x, 0.0, 6.0),
        "leaky_relu": np.where(x < 0, (alpha or 0.0) * x, x),
        "elu": np.where(x < 0, (alpha or 1.0) * expm1, x),
        "selu": _SELU[0] * np.where(x < 0, _SELU[1] * expm1, x),
        "softplus": np.logaddexp(0.0, x),
        "softsign": x / (1.0 + np.abs(x)),
        "tanh": np.tanh(x),
        "sigmoid": sigmoid,
        "hard_sigmoid": np.clip(0.2 * x + 0.5, 0.0, 1.0),
        "hard_sigmoid_v3": np.clip(x + 3.0, 0.0, 6.0) / 6.0,
        "exponential": np.exp(x),
        "softmax": exponential / exponential.sum(axis=-1, keepdims=True),
        "swish": x * sigmoid,
        "gelu": 0.5 * x * (1.0 + np.vectorize(erf)(x / np.sqrt(2.0))),
        "gelu_tanh": 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))),
    }[kind]


def _layer(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    x = inputs[0]
    match layer:
        case Dense():
            return x @ layer.weight.T + layer.bias
        case Convolution():
            return _convolution(layer, x)
        case Pool():
            return _pool(layer, x)
        case Affine():
            return layer.gain * x + layer.shift
        case LayerNorm():
            mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            return (x - mean) / np.sqrt(variance + layer.epsilon) * layer.gain + layer.shift
        case Activation():
            return function(layer.kind, x, layer.alpha)
        case Clip():
            return np.clip(x, layer.low, layer.high)
        case Recurrent():
            return _recurrent(layer, x)
        case Combine():
            return sum(inputs) if layer.kind == "add" else np.prod(np.stack(inputs), axis=0)
        case Join():
            return np.concatenate(inputs, layer.axis)
        case View():
            return x.reshape(-1)[layer.index]


def _convolution(layer: Convolution, x: np.ndarray) -> np.ndarray:
    out, height, width, depth = layer.weight.shape
    x = np.pad(x, (*layer.padding, (0, 0)))
    (down, right), (gap, gap_right) = layer.stride, layer.dilation
    rows = (x.shape[0] - (height - 1) * gap - 1) // down + 1
    columns = (x.shape[1] - (width - 1) * gap_right - 1) // right + 1
    result = np.zeros((rows, columns, out))
    for i, j, channel in np.ndindex(rows, columns, out):
        group = channel // (out // layer.groups)
        patch = x[
            i * down : i * down + (height - 1) * gap + 1 : gap,
            j * right : j * right + (width - 1) * gap_right + 1 : gap_right,
            group * depth : (group + 1) * depth,
        ]
        result[i, j, channel] = (patch * layer.weight[channel]).sum() + layer.bias[channel]
    return result


def _pool(layer: Pool, x: np.ndarray) -> np.ndarray:
    outside = 0.0 if layer.count_padding else np.nan
    x = np.pad(x, (*layer.padding, (0, 0)), constant_values=outside)
    (height, width), (down, right) = layer.window, layer.stride
    rows = (x.shape[0] - height) // down + 1
    columns = (x.shape[1] - width) // right + 1
    reduce = np.nanmax if layer.kind == "max" else np.nanmean
    result = np.zeros((rows, columns, x.shape[2]))
    for i, j in np.ndindex(rows, columns):
        patch = x[i * down : i * down + height, j * right : j * right + width]
        result[i, j] = reduce(patch, axis=(0, 1))
    return result


def _recurrent(layer: Recurrent, x: np.ndarray) -> np.ndarray:
    h, c = np.zeros(layer.units), np.zeros(layer.units)
    results = []
    for row in x:
        h, c = _step(layer, row, h, c)
        results.append(h)
    return np.array(results) if layer.return_sequences else h


def _step(
    layer: Recurrent, row: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    def act(v: np.ndarray) -> np.ndarray:
        return function(layer.activation, v)

    def gate(v: np.ndarray) -> np.ndarray:
        return function(layer.recurrent_activation, v)

    n = layer.units
    if layer.cell == "simple_rnn":
        return act(row @ layer.kernel + h @ layer.recurrent + layer.bias), c
    if layer.cell == "lstm":
        a = row @ layer.kernel + h @ layer.recurrent + layer.bias
        c = gate(a[n : 2 * n]) * c + gate(a[:n]) * act(a[2 * n : 3 * n])
        c = np.clip(c, -(layer.cell_limit or np.inf), layer.cell_limit or np.inf)
        return gate(a[3 * n :]) * act(c), c
    first, second = layer.bias if layer.reset_after else (layer.bias, np.zeros(3 * n))
    a, q = row @ layer.kernel + first, h @ layer.recurrent + second
    z, r = gate(a[:n] + q[:n]), gate(a[n : 2 * n] + q[n : 2 * n])
    if layer.reset_after:
        candidate = act(a[2 * n :] + r * q[2 * n :])
    else:
        candidate = act(a[2 * n :] + (r * h) @ layer.recurrent[:, 2 * n :])
    return z * h + (1.0 - z) * candidate, c

"""Nodes of an ONNX graph that depend on constants alone, computed at the import."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from safectl.export.importers.onnx_files import Constant
from safectl.export.importers.onnx_layer import LARGEST_CONSTANT, OnnxLayer
from safectl.export.importers.onnx_views import VIEWS

_DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}
"""Numbers of `TensorProto.DataType`."""
_ALIKE: Mapping[str, Callable[..., Constant]] = {
    "Add": np.add,
    "Identity": np.asarray,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
}


def fold(layer: OnnxLayer) -> tuple[Constant, ...] | None:
    """Return the constant outputs of a node, or nothing if it is a layer of the network."""
    kind, count = layer.node.kind, len(layer.node.inputs)
    if kind == "Constant":
        return (_given(layer),)
    if kind == "Shape":
        name = layer.node.inputs[0]
        shape = layer.constant(0).shape if name in layer.scope.constants else layer.shape()
        return (np.array(shape[slice(layer.attribute("start", 0), layer.attribute("end", None))]),)
    if not all(layer.is_constant(position) for position in range(count) if layer.has(position)):
        return None
    inputs = [layer.constant(position) for position in range(count) if layer.has(position)]
    if kind in VIEWS:
        return VIEWS[kind](layer, inputs[0])
    if kind in _ALIKE:
        return (_limited(np.asarray(_ALIKE[kind](*inputs))),)
    if kind == "Div":
        is_whole = np.issubdtype(inputs[0].dtype, np.integer)
        return (np.asarray((np.floor_divide if is_whole else np.divide)(*inputs)),)
    if kind == "Concat":
        return (_limited(np.concatenate(inputs, int(layer.attribute("axis", 0)))),)
    if kind == "Cast":
        return (inputs[0].astype(_DTYPES[layer.attribute("to", 1)]),)
    if kind == "ConstantOfShape":
        shape = tuple(int(size) for size in inputs[0].reshape(-1))
        if min(shape, default=0) < 0 or math.prod(shape) > LARGEST_CONSTANT:
            raise ValueError(f"a constant of shape {shape}")
        return (np.full(shape, layer.attribute("value", np.zeros(1, np.float32)).item()),)
    return None


def _limited(array: Constant) -> Constant:
    if array.size > LARGEST_CONSTANT:
        raise ValueError(f"a constant of shape {array.shape}")
    return array


def _given(layer: OnnxLayer) -> Constant:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in layer.node.attributes:
            return np.asarray(layer.node.attributes[name])
    raise layer.refuse("no number", "Store constants as tensors.")

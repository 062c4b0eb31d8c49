"""TFLite graphs as graphs of layers, operator by operator.

A quantised model takes and returns real numbers. Its values are rounded as in the file; layers that
have an integer twin run on the integers of the file, all others in float32 between two roundings.
"""

import math

from safectl.errors import UnsupportedLayer
from safectl.export.importers.graph import Draft, Graph
from safectl.export.importers.tflite_files import TfliteFile
from safectl.export.importers.tflite_layer import TfliteLayer, TfliteScope, rounded
from safectl.export.importers.tflite_layers import LAYERS

SUPPORTED = tuple(sorted(LAYERS))
_SHAPES = ("<i4", "<i8")
_VIEWS = ("EXPAND_DIMS", "RESHAPE", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE")


def tflite_graph(file: TfliteFile) -> Graph:
    """Turn a TFLite graph into a graph of layers.

    Raises:
        UnsupportedLayer: Naming the operator that cannot be imported.
    """
    draft = Draft()
    scope = TfliteScope(file, draft, SUPPORTED)
    for number in file.inputs:
        tensor = file.tensors[number]
        if not tensor.is_whole and tensor.dtype != "<f4":
            raise UnsupportedLayer(
                f"input {tensor.name} of number format {tensor.dtype}",
                supported=("float32", "quantised int8, uint8 and int16"),
                advice="Convert the model with such inputs.",
            )
        value, form = draft.enter(tensor.name, tensor.shape), rounded(tensor)
        scope.values[number] = value if form is None else draft.add(form, tensor.name, value)
    for operator in file.operators:
        layer = TfliteLayer(operator, scope)
        if _computes_a_shape(layer):
            continue
        if operator.kind == "DEQUANTIZE" and layer.is_constant(0):
            scope.constants[operator.outputs[0]] = layer.constant(0)
            continue
        if operator.kind not in LAYERS or len(operator.outputs) != 1:
            raise layer.refuse("", "Build the network from these.")
        value = LAYERS[operator.kind](layer)
        if draft.shape(value) != layer.output.shape:
            raise ValueError(f"{layer.name} has shape {draft.shape(value)}, not as stated")
        form = rounded(layer.output)
        if form is not None and operator.kind not in _VIEWS:
            value = layer.add(form, value)
        scope.values[operator.outputs[0]] = value
    missing = [number for number in file.outputs if number not in scope.values]
    if missing or not file.outputs:
        raise ValueError(f"outputs {missing} do not depend on the network's input")
    return draft.finish([scope.values[number] for number in file.outputs])


def _computes_a_shape(layer: TfliteLayer) -> bool:
    """Return whether an operator handles sizes: they are stated in the file for every value."""
    outputs = [layer.scope.file.tensors[number] for number in layer.operator.outputs]
    return bool(outputs) and all(
        tensor.dtype in _SHAPES and math.prod(tensor.shape) <= 8 for tensor in outputs
    )

"""ONNX graphs as graphs of layers, node by node."""

from collections.abc import Mapping

from safectl.errors import UnsupportedLayer
from safectl.export.importers.graph import Draft, Graph
from safectl.export.importers.layers import Shape
from safectl.export.importers.onnx_constants import fold
from safectl.export.importers.onnx_files import OnnxDoor, OnnxFile
from safectl.export.importers.onnx_layer import OnnxLayer, OnnxScope
from safectl.export.importers.onnx_layers import LAYERS, Append
from safectl.export.importers.onnx_recurrent import append_recurrent
from safectl.export.importers.onnx_views import VIEWS, append_concat, append_view
from safectl.export.importers.onnx_windows import WINDOWED

_APPEND: Mapping[str, Append] = {
    **LAYERS,
    **WINDOWED,
    **dict.fromkeys(VIEWS, append_view),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), append_recurrent),
    "Concat": append_concat,
}
SUPPORTED = ("Constant", "Shape", *sorted(_APPEND))


def onnx_graph(file: OnnxFile) -> Graph:
    """Turn an ONNX graph into a graph of layers.

    A free batch axis becomes one. Values enter and leave in the order of the ONNX file, images
    channel-first.

    Raises:
        UnsupportedLayer: Naming the node that cannot be imported.
    """
    outputs = [door.name for door in file.outputs]
    used = frozenset(name for node in file.nodes for name in node.inputs) | set(outputs)
    scope = OnnxScope(file.opset, Draft(), dict(file.constants), used, SUPPORTED)
    for door in file.inputs:
        scope.values[door.name] = scope.draft.enter(door.name, _shape(door))
    for node in file.nodes:
        layer = OnnxLayer(node, scope)
        constants = fold(layer)
        if constants is not None:
            scope.constants.update(zip(node.outputs, constants, strict=False))
            continue
        if node.kind not in _APPEND:
            raise layer.refuse("", "Build the network from these, or export with a newer opset.")
        scope.values.update(zip(node.outputs, _APPEND[node.kind](layer), strict=False))
    missing = [name for name in outputs if name not in scope.values]
    if missing or not outputs:
        raise ValueError(f"outputs {missing} do not depend on the network's input")
    for door in file.outputs:
        _require_shape(door, scope.draft.shape(scope.values[door.name]))
    return scope.draft.finish([scope.values[name] for name in outputs])


def _require_shape(door: OnnxDoor, found: Shape) -> None:
    """Refuse a result that has another shape than the file says; free sizes fit all."""
    sizes = zip(door.shape, found, strict=False)
    fits = len(door.shape) == len(found) and all(
        isinstance(size, str) or size == ours for size, ours in sizes
    )
    if door.shape and not fits:
        raise ValueError(f"output {door.name} of shape {door.shape} is imported as {found}")


def _shape(door: OnnxDoor) -> Shape:
    """Return the sizes of an input; a free size is one where it is the batch.

    The batch is the free axis of that name, or the first axis where none has it.
    """
    free = [axis for axis, size in enumerate(door.shape) if isinstance(size, str)]
    named = [axis for axis in free if "batch" in str(door.shape[axis]).lower()]
    batch = named or ([0] if len(door.shape) > 1 else [])
    sizes = [1 if axis in free and axis in batch else n for axis, n in enumerate(door.shape)]
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(fixed) != len(sizes) or not door.is_float or not sizes:
        raise UnsupportedLayer(
            f"input {door.name} of shape {door.shape}",
            supported=("float32 inputs of fixed size, but for the batch",),
            advice="Export the model with fixed sizes.",
        )
    return tuple(fixed)

"""ONNX files with their constants, which may lie in a second file of the same folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from safectl.errors import FileFormatError, MissingExtra
from safectl.export.importers.layers import Shape

if TYPE_CHECKING:
    from onnx import TensorProto, ValueInfoProto

LARGEST_BYTES = 1 << 26
"""Of all constants: 64 MiB, far above the flash of every board."""
_ADVICE = "export the model again"
_DOMAINS = ("", "ai.onnx")
Constant = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One node as the file holds it; an absent input has an empty name."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OnnxDoor:
    """Where values enter or leave: sizes as numbers, or as the text that names a free size."""

    name: str
    is_float: bool
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A graph with its constants.

    Attributes:
        path: The file, for messages.
        opset: Version of the operators.
        nodes: In an order in which they can run.
        constants: Arrays by name.
        inputs: Doors that are no constants.
        outputs: Doors through which values leave; without sizes where the file states none.
    """

    path: Path
    opset: int
    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, Constant]
    inputs: tuple[OnnxDoor, ...]
    outputs: tuple[OnnxDoor, ...]


def read_onnx(path: Path, content: bytes) -> OnnxFile:
    """Read an ONNX model; other files are read only from inside its folder.

    Raises:
        FileFormatError: If it is damaged, too large, or refers to a file outside its folder.
        MissingExtra: If onnx is not installed.
    """
    try:
        from google.protobuf.message import DecodeError
        from onnx import ModelProto, TensorProto
    except ModuleNotFoundError as error:
        raise MissingExtra("onnx", "mcu") from error
    try:
        model = ModelProto.FromString(content)
    except DecodeError as error:
        raise FileFormatError(path, f"is no ONNX model ({error})", _ADVICE) from error
    versions = [entry.version for entry in model.opset_import if entry.domain in _DOMAINS]
    if not versions or not model.graph.node or model.functions or model.graph.sparse_initializer:
        problem = "holds no plain graph of ONNX operators (no opset, no node, or own functions)"
        raise FileFormatError(path, problem, "export it again, without functions or custom domains")
    constants: dict[str, Constant] = {}
    for tensor in model.graph.initializer:
        constants[tensor.name] = _constant(path, tensor)
        if sum(array.nbytes for array in constants.values()) > LARGEST_BYTES:
            raise FileFormatError(path, f"holds over {LARGEST_BYTES} bytes of constants", _ADVICE)
    doors = [door for door in model.graph.input if door.name not in constants]
    return OnnxFile(
        path,
        max(versions),
        tuple(_node(path, node) for node in model.graph.node),
        constants,
        tuple(_door(door, TensorProto.FLOAT) for door in doors),
        tuple(_door(door, TensorProto.FLOAT) for door in model.graph.output),
    )


def _node(path: Path, node: Any) -> OnnxNode:  # noqa: ANN401  protobuf classes have no stubs
    from onnx import AttributeProto, helper

    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.type == AttributeProto.TENSOR:
            value = _constant(path, value)
        attributes[attribute.name] = value.decode() if isinstance(value, bytes) else value
    kind = node.op_type if node.domain in _DOMAINS else f"{node.domain}.{node.op_type}"
    name = node.name or (node.output[0] if node.output else kind)
    return OnnxNode(kind, name, tuple(node.input), tuple(node.output), attributes)


def _door(door: "ValueInfoProto", float_type: int) -> OnnxDoor:
    tensor = door.type.tensor_type
    sizes = [size.dim_value or size.dim_param or "?" for size in tensor.shape.dim]
    return OnnxDoor(door.name, tensor.elem_type == float_type, tuple(sizes))


def _constant(path: Path, tensor: "TensorProto") -> Constant:
    from onnx import TensorProto, numpy_helper

    shape = tuple(tensor.dims)
    if 4 * math.prod(shape) > LARGEST_BYTES or min(shape, default=0) < 0:
        raise FileFormatError(path, f"holds a constant of shape {shape}", _ADVICE)
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    entries = {entry.key: entry.value for entry in tensor.external_data}
    dtypes: dict[int, str] = {TensorProto.FLOAT: "<f4", TensorProto.INT64: "<i8"}
    return _external(path, entries, shape, dtypes[tensor.data_type])


def _external(path: Path, entries: Mapping[str, str], shape: Sequence[int], dtype: str) -> Constant:
    folder = path.resolve().parent
    place = (folder / entries["location"]).resolve()
    if not place.is_relative_to(folder) or not place.is_file():
        problem = f"keeps weights in {entries['location']!r}, which is no file of its folder"
        raise FileFormatError(path, problem, "put the file with the weights beside it")
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    with place.open("rb") as file:
        file.seek(int(entries.get("offset", 0)))
        content = file.read(wanted)
    if len(content) != wanted:
        raise FileFormatError(place, "is shorter than the model says", _ADVICE)
    return np.frombuffer(content, dtype).reshape(shape)


def axes_of(shape: Shape, axes: Sequence[int]) -> list[int]:
    """Return axes, which may count from the end, from the start.

    Raises:
        ValueError: If one does not exist or is named twice.
    """
    found = [int(axis) + len(shape) if axis < 0 else int(axis) for axis in axes]
    if len(set(found)) != len(found) or not set(found) <= set(range(len(shape))):
        raise ValueError(f"axes {list(axes)} of a value of shape {shape}")
    return sorted(found)

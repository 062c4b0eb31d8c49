"""The one door for model files: whatever a file holds, it becomes a program or one clear error."""

import struct
import zipfile
import zlib
from pathlib import Path

from safectl.errors import (
    FileFormatError,
    MissingExtra,
    SafectlError,
    UnsupportedLayer,
)
from safectl.export.importers.graph import Graph
from safectl.export.importers.keras_files import read_h5, read_keras
from safectl.export.importers.keras_model import keras_graph
from safectl.export.importers.onnx_files import read_onnx
from safectl.export.importers.onnx_model import onnx_graph
from safectl.export.importers.program import graph_program
from safectl.export.importers.tflite_files import read_tflite
from safectl.export.importers.tflite_model import tflite_graph
from safectl.export.program import Program
from safectl.spec import Spec

LARGEST_FILE = 1 << 26
"""Bytes of a model file: 64 MiB, far above the flash of every board."""
FORMATS = "ONNX (.onnx), Keras (.keras, .h5) or TFLite (.tflite)"
_HDF5, _ZIP, _TFLITE = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"TFL3"
_ADVICE = f"save the model again as {FORMATS}"
_DAMAGED = (
    SafectlError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def import_model(path: Path, *, name: str, spec: Spec | None = None) -> Program:
    """Read a model file as a program; what the file holds decides, not its suffix.

    The observation is the model's inputs, flattened in the order of the file (images of ONNX
    channel-first), the action its outputs. Layers that only matter in training disappear. Nothing
    else is left out: a layer that has no operation is an error.

    Args:
        path: The file; ONNX weights may lie in other files of its folder.
        name: Lower-case C identifier.
        spec: Signals of the robot; the action is limited to theirs. Without, the program is a bare
            network with numbers in and out.

    Raises:
        FileFormatError: If the file is missing, damaged, too large, or of another format.
        UnsupportedLayer: Naming the layer that cannot be exported and what to do.
        ShapeError: If the specification does not fit the model.
        MissingExtra: If the package that reads the format is not installed.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise FileFormatError(path, f"cannot be read ({error.strerror})", _ADVICE) from error
    if len(content) > LARGEST_FILE:
        raise FileFormatError(path, f"is larger than {LARGEST_FILE} bytes", _ADVICE)
    try:
        graph = _graph(path, content)
        graph_program(graph, "model", None)  # whatever fails from here on is the caller's
    except (FileFormatError, UnsupportedLayer, MissingExtra):
        raise
    except _DAMAGED as error:
        problem = f"is damaged, or not what it seems ({type(error).__name__}: {error})"
        raise FileFormatError(path, problem, _ADVICE) from error
    return graph_program(graph, name, spec)


def _graph(path: Path, content: bytes) -> Graph:
    if content.startswith(_HDF5):
        return keras_graph(read_h5(path, content))
    if content.startswith(_ZIP):
        return keras_graph(read_keras(path, content))
    if content[4:8] == _TFLITE:
        return tflite_graph(read_tflite(path, content))
    return onnx_graph(read_onnx(path, content))

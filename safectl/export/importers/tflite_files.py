"""TFLite (LiteRT) files: tensors and operators, read through the published schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safectl.errors import FileFormatError, MissingExtra
from safectl.export.importers.layers import Array, Shape

MOST_OPERATORS, MOST_TENSORS, MOST_OPERANDS = 1 << 12, 1 << 14, 1 << 8
"""Of one file; of one operator: a broken file cannot ask for more."""
_ADVICE = "convert the model again"
Stored = npt.NDArray[Any]
_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 7: "<i2", 9: "i1", 10: "<f8"}
"""Number formats of the schema's `TensorType`."""

_WHOLE = ("i1", "<i2", "u1")


@dataclass(frozen=True, slots=True, eq=False)
class Quantisation:
    """Stored number q means scale (q - zero_point).

    Attributes:
        scale: One number, or one per index of `axis`.
        zero_point: As many.
        axis: For several numbers: the axis that they belong to.
    """

    scale: Array
    zero_point: Array
    axis: int

    def real(self, stored: Stored) -> Array:
        """Return the real numbers that stored ones mean."""
        shape = [1] * stored.ndim
        if self.scale.size > 1:
            shape[self.axis] = self.scale.size
        zero = self.zero_point.reshape(shape if self.zero_point.size > 1 else [1] * stored.ndim)
        real: Array = (stored.astype(np.float64) - zero) * self.scale.reshape(shape)
        return real


@dataclass(frozen=True, slots=True, eq=False)
class TfliteTensor:
    """A value or constant.

    Attributes:
        name: Its name in the file.
        shape: Sizes, the batch first.
        dtype: Number format as NumPy writes it.
        stored: Entries of a constant; nothing for a value.
        quantisation: What stored integers mean; nothing for plain numbers.
        is_variable: Whether it lives from one call to the next.
    """

    name: str
    shape: Shape
    dtype: str
    stored: Stored | None
    quantisation: Quantisation | None
    is_variable: bool

    @property
    def is_whole(self) -> bool:
        """Return whether its entries are quantised numbers."""
        return self.dtype in _WHOLE and self.quantisation is not None

    def constant(self) -> Stored | None:
        """Return the real numbers of a constant."""
        if self.stored is None or self.quantisation is None:
            return self.stored
        return self.quantisation.real(self.stored)


@dataclass(frozen=True, slots=True, eq=False)
class TfliteOperator:
    """One operator; an absent input has number -1."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True, slots=True)
class TfliteFile:
    """The one graph of a file."""

    path: Path
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(path: Path, content: bytes) -> TfliteFile:
    """Read a TFLite model.

    Raises:
        FileFormatError: If it has no single graph, or too many parts.
        MissingExtra: If the package tflite is not installed.
    """
    try:
        import tflite
    except ModuleNotFoundError as error:
        raise MissingExtra("tflite", "mcu") from error
    model = tflite.Model.GetRootAsModel(content, 0)
    if model.SubgraphsLength() != 1:
        problem = f"holds {model.SubgraphsLength()} graphs"
        raise FileFormatError(path, problem, "convert one signature, without control flow")
    graph = model.Subgraphs(0)
    count, operators = graph.TensorsLength(), graph.OperatorsLength()
    if count > MOST_TENSORS or operators > MOST_OPERATORS:
        raise FileFormatError(path, f"holds {count} tensors, {operators} operators", _ADVICE)
    kinds = _names(tflite.BuiltinOperator)
    return TfliteFile(
        path,
        tuple(_tensor(model, graph.Tensors(number)) for number in range(count)),
        tuple(_operator(model, graph.Operators(number), kinds) for number in range(operators)),
        _numbers(graph.InputsAsNumpy(), count),
        _numbers(graph.OutputsAsNumpy(), count),
    )


def _names(enumeration: type) -> Mapping[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _operator(model: Any, operator: Any, kinds: Mapping[int, str]) -> TfliteOperator:  # noqa: ANN401
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    kind, tensors = kinds.get(number, str(number)), model.Subgraphs(0).TensorsLength()
    if kind == "CUSTOM":
        kind = f"CUSTOM {(code.CustomCode() or b'').decode(errors='replace')}"
    inputs = _numbers(operator.InputsAsNumpy(), tensors)
    outputs = _numbers(operator.OutputsAsNumpy(), tensors)
    return TfliteOperator(kind, inputs, outputs, operator.BuiltinOptions())


def _numbers(given: npt.NDArray[np.int32] | int, count: int) -> tuple[int, ...]:
    """Return the numbers of tensors that exist."""
    numbers = _entries(given)
    if not all(-1 <= number < count for number in numbers):
        raise ValueError(f"tensors {numbers} of {count}")
    return numbers


def _entries(given: npt.NDArray[np.int32] | int) -> tuple[int, ...]:
    """Return a short list; the package gives 0 for an absent one."""
    if isinstance(given, int):
        return ()
    if len(given) > MOST_OPERANDS:
        raise ValueError(f"{len(given)} entries in a list")
    return tuple(given.tolist())


def _tensor(model: Any, tensor: Any) -> TfliteTensor:  # noqa: ANN401  classes without types
    shape = _entries(tensor.ShapeAsNumpy())
    if tensor.Sparsity() is not None:
        raise ValueError("sparse weights")
    dtype = _DTYPES.get(tensor.Type(), f"type {tensor.Type()}")
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    stored = None
    if not isinstance(data, int) and not tensor.IsVariable() and dtype in _DTYPES.values():
        stored = np.frombuffer(data.tobytes(), dtype).reshape(shape)
    name = (tensor.Name() or b"").decode(errors="replace")
    found = _quantisation(tensor.Quantization())
    return TfliteTensor(name, shape, dtype, stored, found, bool(tensor.IsVariable()))


def _quantisation(found: Any) -> Quantisation | None:  # noqa: ANN401  a class without types
    if found is None or found.ScaleLength() == 0:
        return None
    scale = np.array(found.ScaleAsNumpy(), np.float64)
    zero = np.zeros(1) if found.ZeroPointLength() == 0 else found.ZeroPointAsNumpy()
    return Quantisation(scale, np.array(zero, np.float64), found.QuantizedDimension())

"""A TFLite operator with what it reads, as the importers of layers see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from safectl.errors import UnsupportedLayer
from safectl.export.importers.graph import Draft
from safectl.export.importers.layers import (
    Activation,
    Affine,
    Array,
    Clip,
    Index,
    Layer,
    Rounded,
    Shape,
)
from safectl.export.importers.tflite_files import (
    Stored,
    TfliteFile,
    TfliteOperator,
    TfliteTensor,
)
from safectl.export.ops import Quantisation

_FUSED: Mapping[int, Layer] = {
    1: Activation("relu"),
    2: Clip(-1.0, 1.0),
    3: Activation("relu6"),
    4: Activation("tanh"),
}
"""The schema's `ActivationFunctionType` behind none."""
_Options = TypeVar("_Options")


@dataclass(slots=True)
class TfliteScope:
    """What the operators of a file have defined so far.

    Attributes:
        file: The file.
        draft: The graph; shapes hold the batch axis, of size one.
        supported: Operators that can be imported, for messages.
        values: Values of the graph by number of the tensor.
        constants: Constants that operators computed, by number of the tensor.
    """

    file: TfliteFile
    draft: Draft
    supported: tuple[str, ...]
    values: dict[int, str] = field(default_factory=dict)
    constants: dict[int, Stored] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TfliteLayer:
    """One operator in its scope."""

    operator: TfliteOperator
    scope: TfliteScope

    @property
    def name(self) -> str:
        """Name of what it computes, without the scopes of TensorFlow."""
        return self.output.name.split(";")[0].split(":")[0]

    @property
    def draft(self) -> Draft:
        """The graph that it becomes a part of."""
        return self.scope.draft

    @property
    def output(self) -> TfliteTensor:
        """The first tensor that it writes."""
        return self.scope.file.tensors[self.operator.outputs[0]]

    def options(self, kind: Callable[[], _Options]) -> _Options:
        """Return the options as a class of the schema; absent ones are the defaults."""
        found, table = kind(), self.operator.options
        if table is None:
            raise self.refuse("no options", "Convert the model again.")
        initialise: Any = found
        initialise.Init(table.Bytes, table.Pos)
        return found

    def refuse(self, problem: str, advice: str) -> UnsupportedLayer:
        """Return the error that says why this operator cannot be imported."""
        return UnsupportedLayer(
            f"operator {self.name} ({self.operator.kind}{problem and ': '}{problem})",
            supported=self.scope.supported,
            advice=advice,
        )

    def has(self, position: int) -> bool:
        """Return whether an optional input is there."""
        return len(self.operator.inputs) > position and self.operator.inputs[position] >= 0

    def tensor(self, position: int) -> TfliteTensor:
        """Return an input as the file describes it."""
        if not self.has(position):
            raise self.refuse(f"no input {position}", "Convert the model again.")
        return self.scope.file.tensors[self.operator.inputs[position]]

    def is_constant(self, position: int) -> bool:
        """Return whether an input is a constant."""
        tensor = self.tensor(position)
        computed = self.operator.inputs[position] in self.scope.constants
        return computed or tensor.stored is not None

    def constant(self, position: int) -> Stored:
        """Return the real numbers of an input that must be a constant.

        Raises:
            UnsupportedLayer: If it is computed from the network's input.
        """
        number, found = self.operator.inputs[position], self.tensor(position).constant()
        found = self.scope.constants.get(number, found) if found is None else found
        if found is None:
            raise self.refuse(f"input {position} is no constant", "Use constant weights.")
        return found

    def value(self, position: int = 0) -> str:
        """Return an input that must depend on the network's input.

        Raises:
            UnsupportedLayer: If it is a constant.
        """
        tensor = self.tensor(position)
        if self.operator.inputs[position] not in self.scope.values:
            advice = "Fold the constants before the conversion."
            raise self.refuse(f"input {position} ({tensor.name}) is a constant", advice)
        return self.scope.values[self.operator.inputs[position]]

    def shape(self, position: int = 0) -> Shape:
        """Return the shape of an input, with the batch axis."""
        return self.draft.shape(self.value(position))

    def add(self, layer: Layer, *values: str) -> str:
        """Append a layer."""
        return self.draft.add(layer, self.name, *values)

    def view(self, value: str, arrange: Callable[[Index], Index]) -> str:
        """Append a view."""
        return self.draft.view(value, self.name, arrange)

    def affine(self, value: str, gain: Stored, shift: Stored) -> str:
        """Append gain * value + shift, where both broadcast along the last axis.

        Raises:
            UnsupportedLayer: If they differ along another axis.
        """
        width = self.draft.shape(value)[-1]
        if not {gain.size, shift.size} <= {1, width}:
            raise self.refuse("a constant per entry", "Use one per channel.")
        both = 1 if gain.size == shift.size == 1 else width
        gains, shifts = (np.broadcast_to(x.reshape(-1), (both,)) for x in (gain, shift))
        return self.add(Affine(gains, shifts), value)

    def activate(self, value: str, fused: int) -> str:
        """Append an activation that the options name.

        Raises:
            UnsupportedLayer: If it is not a known one.
        """
        if fused == 0:
            return value
        if fused not in _FUSED:
            raise self.refuse(f"fused activation {fused}", "Use relu, relu6 or tanh.")
        return self.add(_FUSED[fused], value)

    def steps(self, position: int, outputs: int) -> Array | None:
        """Return what the weights of each output are multiples of; nothing for plain numbers."""
        form = self.tensor(position).quantisation
        if form is None or not self.tensor(position).is_whole:
            return None
        return np.broadcast_to(form.scale, (outputs,))


def rounded(tensor: TfliteTensor) -> Rounded | None:
    """Return the rounding of a quantised value; unsigned integers stand for the same numbers."""
    form = tensor.quantisation
    if form is None or not tensor.is_whole or form.scale.size != 1:
        return None
    zero = int(form.zero_point[0]) - (128 if tensor.dtype == "u1" else 0)
    dtype = "int16" if tensor.dtype == "<i2" else "int8"
    return Rounded(Quantisation(dtype, float(form.scale[0]), zero))

"""An ONNX node with what it reads, as the importers of layers see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safectl.errors import UnsupportedLayer
from safectl.export.importers.graph import Draft
from safectl.export.importers.layers import Affine, Array, Index, Layer, Shape
from safectl.export.importers.onnx_files import Constant, OnnxNode

LARGEST_CONSTANT = 1 << 20
"""Entries of a computed constant."""


@dataclass(slots=True)
class OnnxScope:
    """What the nodes of a file have defined so far.

    Attributes:
        opset: Version of the operators.
        draft: The graph.
        constants: Arrays by ONNX name.
        values: Values of the graph by ONNX name; shapes hold the batch axis, of size one.
        used: ONNX names that some node or the outside reads.
        supported: Operators that can be imported, for messages.
    """

    opset: int
    draft: Draft
    constants: dict[str, Constant]
    used: frozenset[str]
    supported: tuple[str, ...]
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OnnxLayer:
    """One node in its scope."""

    node: OnnxNode
    scope: OnnxScope

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.node.name

    @property
    def draft(self) -> Draft:
        """The graph that it becomes a part of."""
        return self.scope.draft

    def refuse(self, problem: str, advice: str) -> UnsupportedLayer:
        """Return the error that says why this node cannot be imported."""
        return UnsupportedLayer(
            f"node {self.name} ({self.node.kind}{problem and ': '}{problem})",
            supported=self.scope.supported,
            advice=advice,
        )

    def has(self, position: int) -> bool:
        """Return whether an optional input is there."""
        return len(self.node.inputs) > position and self.node.inputs[position] != ""

    def is_constant(self, position: int) -> bool:
        """Return whether an input is a constant."""
        return self.has(position) and self.node.inputs[position] in self.scope.constants

    def constant(self, position: int) -> Constant:
        """Return an input that must be a constant.

        Raises:
            UnsupportedLayer: If it is computed from the network's input, or absent.
        """
        if not self.is_constant(position):
            advice = "Export the model with fixed sizes and constant weights."
            raise self.refuse(f"input {position} is no constant", advice)
        return self.scope.constants[self.node.inputs[position]]

    def value(self, position: int = 0) -> str:
        """Return an input that must depend on the network's input.

        Raises:
            UnsupportedLayer: If it is a constant or absent.
        """
        name = self.node.inputs[position] if self.has(position) else ""
        if name in self.scope.constants or not name:
            advice = "Fold the constants before the export."
            raise self.refuse(f"input {position} is a constant or absent", advice)
        return self.scope.values[name]

    def shape(self, position: int = 0) -> Shape:
        """Return the shape of an input, with the batch axis."""
        return self.draft.shape(self.value(position))

    def attribute(self, name: str, default: Any) -> Any:  # noqa: ANN401  what ONNX stores
        """Return an attribute or the default of the standard."""
        return self.node.attributes.get(name, default)

    def require(self, *, advice: str, **expected: object) -> None:
        """Refuse attributes that differ from what can be imported; an absent one is accepted.

        Raises:
            UnsupportedLayer: Naming the attribute.
        """
        for name, wanted in expected.items():
            if self.attribute(name, wanted) != wanted:
                raise self.refuse(f"{name}={self.attribute(name, wanted)!r}", advice)

    def axes(self, position: int, default: Sequence[int] | None = None) -> list[int]:
        """Return the axes that an input or (before opset 13 or 18) an attribute names."""
        if self.has(position):
            return [int(axis) for axis in self.constant(position).reshape(-1)]
        found = self.attribute("axes", default)
        if found is None:
            raise self.refuse("no axes", "Name the axes.")
        return [int(axis) for axis in found]

    def add(self, layer: Layer, *values: str) -> str:
        """Append a layer."""
        return self.draft.add(layer, self.name, *values)

    def view(self, value: str, arrange: Callable[[Index], Index]) -> str:
        """Append a view."""
        return self.draft.view(value, self.name, arrange)

    def along(self, layer: Layer, value: str, axis: int) -> str:
        """Append a layer that works along the last axis to another axis."""
        moved = self.view(value, lambda index: np.moveaxis(index, axis, -1))
        return self.view(self.add(layer, moved), lambda index: np.moveaxis(index, -1, axis))

    def affine(self, value: str, gain: Constant, shift: Constant) -> str:
        """Append gain * value + shift, where both broadcast against the value."""
        shape = self.draft.shape(value)
        full = np.broadcast_shapes(shape, gain.shape, shift.shape)
        if full != shape:
            value = self.view(value, lambda index: np.broadcast_to(index, full))
        if gain.size == shift.size == 1:
            return self.add(Affine(gain.reshape(-1), shift.reshape(-1)), value)
        gains, shifts = (np.broadcast_to(x, full).astype(np.float64) for x in (gain, shift))
        for axis in reversed(range(len(full))):
            rows = (_only_along(gains, axis), _only_along(shifts, axis))
            if rows[0] is not None and rows[1] is not None:
                return self.along(Affine(rows[0], rows[1]), value, axis)
        flat = self.draft.reshape(value, (-1,), self.name)
        scaled = self.add(Affine(gains.reshape(-1), shifts.reshape(-1)), flat)
        return self.draft.reshape(scaled, full, self.name)


def _only_along(array: Array, axis: int) -> Array | None:
    """Return the entries along an axis if all others are copies, else nothing."""
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    return rows[0] if bool((rows == rows[0]).all()) else None

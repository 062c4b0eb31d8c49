"""From torch modules to the operations of a program, one operation per layer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import nn

from safectl.errors import RangeError, ShapeError, UnsupportedLayer
from safectl.export.ops import Op, output_sizes
from safectl.export.program import FLOAT32_MAX, OBSERVATION, Array, Program
from safectl.spec import Spec

SUPPORTED = ("Sequential", "Linear", "ReLU", "Tanh", "Identity", "Flatten")
_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh"}
_FREE = (nn.Identity, nn.Flatten)


@dataclass(frozen=True, slots=True, eq=False)
class Normaliser:
    """Statistics of an observation: clip((x - mean) / sqrt(variance + epsilon), -clip, clip).

    Attributes:
        mean: Shape (n,), units of the observation, float64.
        variance: Shape (n,), units squared, never negative, float64.
        epsilon: Added to the variance; zero only if no variance is.
        clip: Largest magnitude after normalisation, above zero; infinity for none.
    """

    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    epsilon: float = 1e-8
    clip: float = 10.0

    def __post_init__(self) -> None:
        if self.variance.shape != self.mean.shape or self.mean.ndim != 1:
            raise ShapeError("variance", expected=self.mean.shape, got=self.variance.shape)
        if not (self.variance >= 0.0).all() or not (self.variance + self.epsilon > 0.0).all():
            raise RangeError(
                "variance + epsilon",
                value=float((self.variance + self.epsilon).min()),
                expected="above zero, with no variance below zero",
            )
        if not self.clip > 0.0:
            raise RangeError("clip", value=self.clip, expected="a number above zero")


@dataclass(slots=True)
class Tracer:
    """Collects operations and constants; every method returns the name of the value it defines.

    Attributes:
        name: Name of the program.
        spec: Its signals.
    """

    name: str
    spec: Spec
    _ops: list[Op] = field(default_factory=list, init=False)
    _constants: dict[str, Array] = field(default_factory=dict, init=False)
    _sizes: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._sizes = {OBSERVATION: self.spec.nx}

    def size(self, value: str) -> int:
        """Return the number of entries of a value."""
        return self._sizes[value]

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """Store an array as float32 and return its name; the same name needs the same content.

        Raises:
            RangeError: If the name is taken by another array.
        """
        with np.errstate(over="ignore"):  # `Program` reports what is not finite in float32
            stored = np.asarray(array, dtype=np.float64).astype(np.float32)
        known = self._constants.setdefault(name, stored)
        if not np.array_equal(known, stored, equal_nan=True):
            raise RangeError("constant", value=name, expected="a name not used before")
        return name

    def op(self, op: Op) -> str:
        """Append an operation and return the name of its first output.

        Raises:
            ShapeError: If a size does not fit.
        """
        shapes = {name: array.shape for name, array in self._constants.items()}
        sizes = output_sizes(op, self._sizes, shapes)
        self._sizes.update(zip(op.outputs, sizes, strict=True))
        self._ops.append(op)
        return op.outputs[0]

    def normalise(self, value: str, normaliser: Normaliser, *, name: str) -> str:
        """Append a normaliser.

        The mean is split in two float32 numbers, the second one scaled beforehand, so that an
        observation with a large mean and a small variance keeps its digits.
        """
        scale = 1.0 / np.sqrt(normaliser.variance + normaliser.epsilon)
        rest = normaliser.mean - normaliser.mean.astype(np.float32).astype(np.float64)
        constants = (
            self.constant(f"{name}_mean", normaliser.mean),
            self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_shift", -rest * scale),
            self.constant(f"{name}_clip", [min(normaliser.clip, FLOAT32_MAX)]),
        )
        return self.op(Op("normalise", (value,), (name,), constants))

    def layers(self, value: str, module: nn.Module, *, name: str) -> str:
        """Append a perceptron.

        Raises:
            UnsupportedLayer: If the module holds anything but `SUPPORTED`.
            ShapeError: If the first layer does not fit the value.
        """
        layers = [layer for layer in _leaves(module, name) if type(layer[1]) not in _FREE]
        index = 0
        while index < len(layers):
            path, layer = layers[index]
            following = layers[index + 1][1] if index + 1 < len(layers) else None
            if not isinstance(layer, nn.Linear):
                advice = "An activation must follow a Linear layer."
                raise UnsupportedLayer(
                    f"{path} ({type(layer).__name__})", supported=SUPPORTED, advice=advice
                )
            activation = _ACTIVATIONS.get(type(following), "none")
            value = self._dense(value, layer, f"{name}_{index}", activation)
            index += 1 if activation == "none" else 2
        return value

    def affine(
        self,
        value: str,
        gain: Sequence[float] | Array,
        shift: Sequence[float] | Array,
        *,
        name: str,
    ) -> str:
        """Append gain * value + shift, entry by entry."""
        constants = (
            self.constant(f"{name}_gain", gain),
            self.constant(f"{name}_shift", shift),
        )
        return self.op(Op("affine", (value,), (name,), constants))

    def slice(self, value: str, start: int, stop: int, *, name: str) -> str:
        """Append a view of the entries from `start` to before `stop`."""
        return self.op(Op("slice", (value,), (name,), start=start, stop=stop))

    def finish(self) -> Program:
        """Return the program; it checks itself."""
        return Program(self.name, self.spec, tuple(self._ops), dict(self._constants))

    def _dense(self, value: str, layer: nn.Linear, name: str, activation: str) -> str:
        weight = layer.weight.detach().cpu().numpy()
        parameter = dict(layer.named_parameters()).get("bias")
        bias = np.zeros(len(weight)) if parameter is None else parameter.detach().cpu().numpy()
        constants = (self.constant(f"{name}_weight", weight), self.constant(f"{name}_bias", bias))
        return self.op(Op("dense", (value,), (name,), constants, activation=activation))


def _leaves(module: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    """Return the layers of nested `Sequential`s in order, each with its path.

    Exact types are compared: a subclass may compute something else.
    """
    kind = type(module)
    described = f"{path} ({kind.__name__})"
    if module._forward_hooks or module._forward_pre_hooks:
        advice = "It has forward hooks, which would be lost: remove them, or bake them in."
        raise UnsupportedLayer(described, supported=SUPPORTED, advice=advice)
    if kind is nn.Sequential:
        children = module.named_children()
        return [leaf for name, child in children for leaf in _leaves(child, f"{path}.{name}")]
    if kind is nn.Linear or kind in _ACTIVATIONS or kind in _FREE:
        return [(path, module)]
    advice = "Rebuild the network from these layers, or pass the Sequential inside the module."
    raise UnsupportedLayer(described, supported=SUPPORTED, advice=advice)

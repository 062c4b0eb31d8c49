"""A small feed-forward network with its first and second tangents, in torch.

For x' = phi(W x + b) along directions h and g of some decision z:

    dx'/dz_h         = phi' W dx/dz_h
    d2x'/dz_h dz_g   = phi' W d2x/dz_h dz_g + phi'' (W dx/dz_h) (W dx/dz_g)

phi' and phi'' follow from the output alone, so nothing but the output is kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safectl.errors import NonFiniteError, RangeError, ShapeError, UnsupportedLayer

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid", "elu", "softplus")
SUPPORTED = ("Sequential", "Linear", "GRUCell", "ReLU", "Tanh", "Sigmoid", "ELU", "Softplus")


class Jet(NamedTuple):
    """A value with its derivatives by the decision z.

    Attributes:
        value: Shape (batch, n).
        first: d value / dz, shape (batch, nz, n).
        second: d2 value / dz dz, shape (batch, nz, nz, n); None where it is not wanted.
    """

    value: Float[Tensor, "batch n"]
    first: Float[Tensor, "batch nz n"]
    second: Float[Tensor, "batch nz nz n"] | None


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer of a forward model.

    A dense layer is phi(W x + b). A layer with `reset_bias` is one step of a gated recurrent unit
    from a zero state, with the rows of W and b in the order update z, reset r, candidate c:

        z, r = sigmoid(.),  c = tanh(W_c x + b_c + r * reset_bias),  y = (1 - z) * c

    Its recurrent weights would multiply the zero state and are not kept.

    Attributes:
        weight: Shape (n, inputs), or (3 n, inputs) for a gated unit.
        bias: Shape (n,) or (3 n,).
        activation: phi of a dense layer, one of `ACTIVATIONS`.
        reset_bias: Shape (n,) for a gated unit, else None.

    Raises:
        ShapeError: If sizes do not fit.
        RangeError: If the activation is not known.
        NonFiniteError: If a parameter is not finite.
    """

    weight: Float[Tensor, "rows inputs"]
    bias: Float[Tensor, " rows"]
    activation: str = "none"
    reset_bias: Float[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise RangeError("activation", value=self.activation, expected=f"one of {ACTIVATIONS}")
        rows = self.outputs * (1 if self.reset_bias is None else 3)
        for name, array in (("weight", self.weight), ("bias", self.bias)):
            if array.shape[0] != rows:
                raise ShapeError(name, expected=(rows, *array.shape[1:]), got=tuple(array.shape))
        for name, array in (("weight", self.weight), ("bias", self.bias)):
            bad = int((~torch.isfinite(array)).sum())
            if bad:
                advice = "train the model again from finite data"
                raise NonFiniteError(name, count=bad, size=array.numel(), advice=advice)

    @property
    def inputs(self) -> int:
        """Entries of the input."""
        return self.weight.shape[1]

    @property
    def outputs(self) -> int:
        """Entries of the output."""
        return len(self.bias) if self.reset_bias is None else len(self.reset_bias)

    @property
    def parameters(self) -> int:
        """Numbers that are stored."""
        arrays = (self.weight, self.bias, self.reset_bias)
        return sum(array.numel() for array in arrays if array is not None)


@dataclass(frozen=True, slots=True, eq=False)
class ForwardModel:
    """Layers in order.

    Raises:
        ShapeError: If a layer does not fit the one before it.
        RangeError: If there is no layer.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise RangeError("layers", value=0, expected="at least one")
        for before, after in zip(self.layers[:-1], self.layers[1:], strict=True):
            if after.inputs != before.outputs:
                expected = (after.weight.shape[0], before.outputs)
                raise ShapeError("weight", expected=expected, got=tuple(after.weight.shape))

    @property
    def inputs(self) -> int:
        """Entries of the input."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Entries of the output."""
        return self.layers[-1].outputs

    @property
    def parameters(self) -> int:
        """Numbers that are stored."""
        return sum(layer.parameters for layer in self.layers)

    def value(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Return the output for every row."""
        no_direction = x.new_zeros(x.shape[0], 0, x.shape[1])
        return self.jet(Jet(x, no_direction, None)).value

    def jet(self, x: Jet) -> Jet:
        """Return the output with its derivatives, given those of the input."""
        for layer in self.layers:
            x = _gated(layer, x) if layer.reset_bias is not None else _dense(layer, x)
        return x


def forward_model(module: nn.Module) -> ForwardModel:
    """Read the layers of a torch network.

    Args:
        module: `Sequential` of `SUPPORTED` layers, an activation after a `Linear`. A `GRUCell` is
            one step from a zero state.

    Raises:
        UnsupportedLayer: If it holds anything else.
    """
    layers: list[Layer] = []
    for name, leaf in _leaves(module, "model"):
        kind = type(leaf)
        if isinstance(leaf, nn.Linear):
            weight = leaf.weight.detach().double()
            parameter = dict(leaf.named_parameters()).get("bias")
            bias = weight.new_zeros(len(weight)) if parameter is None else parameter.detach()
            layers.append(Layer(weight, bias.double()))
        elif isinstance(leaf, nn.GRUCell):
            layers.append(_gated_layer(leaf))
        elif kind in _MODULES and layers and layers[-1].activation == "none":
            before = layers.pop()
            layers.append(Layer(before.weight, before.bias, _MODULES[kind], before.reset_bias))
        else:
            advice = "Use these layers, an activation after a Linear."
            raise UnsupportedLayer(f"{name} ({kind.__name__})", supported=SUPPORTED, advice=advice)
    return ForwardModel(tuple(layers))


_MODULES: Mapping[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.ELU: "elu",
    nn.Softplus: "softplus",
}


def _leaves(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        return [(name, module)]
    children = module.named_children()
    return [leaf for key, child in children for leaf in _leaves(child, f"{name}.{key}")]


def _gated_layer(cell: nn.GRUCell) -> Layer:
    """Reorder torch's reset, update, candidate; fold the recurrent biases that are only added."""
    weight = cell.weight_ih.detach().double()
    reset, update, candidate = weight.chunk(3)
    bias = weight.new_zeros(3, cell.hidden_size)
    recurrent = weight.new_zeros(3, cell.hidden_size)
    if cell.bias:
        bias = cell.bias_ih.detach().double().view(3, -1)
        recurrent = cell.bias_hh.detach().double().view(3, -1)
    rows = torch.cat([bias[1] + recurrent[1], bias[0] + recurrent[0], bias[2]])
    return Layer(torch.cat([update, reset, candidate]), rows, reset_bias=recurrent[2])


def _linear(layer: Layer, x: Jet) -> Jet:
    weight = layer.weight.to(x.value)
    second = None if x.second is None else x.second @ weight.T
    return Jet(x.value @ weight.T + layer.bias.to(x.value), x.first @ weight.T, second)


def _dense(layer: Layer, x: Jet) -> Jet:
    return _apply(_linear(layer, x), layer.activation)


def _apply(x: Jet, activation: str) -> Jet:
    """Apply an elementwise function with derivatives phi' and phi'' taken from its output."""
    function, slope, curvature = _FUNCTIONS[activation]
    value = function(x.value)
    slopes = slope(value)[:, None]
    second = None
    if x.second is not None:
        second = slopes[:, None] * x.second
        second = second + curvature(value)[:, None, None] * _outer(x.first, x.first)
    return Jet(value, slopes * x.first, second)


def _gated(layer: Layer, x: Jet) -> Jet:
    gates = _linear(layer, x)
    n = layer.outputs
    update = _apply(_part(gates, 0, n), "sigmoid")
    reset = _apply(_part(gates, n, 2 * n), "sigmoid")
    assert layer.reset_bias is not None
    bias = layer.reset_bias.to(x.value)
    raw = _part(gates, 2 * n, 3 * n)
    second = None
    if raw.second is not None and reset.second is not None:
        second = raw.second + reset.second * bias
    mixed = Jet(raw.value + reset.value * bias, raw.first + reset.first * bias, second)
    candidate = _apply(mixed, "tanh")
    keep = 1.0 - update.value
    value = keep * candidate.value
    first = keep[:, None] * candidate.first - update.first * candidate.value[:, None]
    if candidate.second is not None and update.second is not None:
        cross = _outer(update.first, candidate.first)
        second = keep[:, None, None] * candidate.second - cross - cross.transpose(1, 2)
        second = second - update.second * candidate.value[:, None, None]
    return Jet(value, first, second)


def _part(x: Jet, start: int, stop: int) -> Jet:
    second = None if x.second is None else x.second[..., start:stop]
    return Jet(x.value[..., start:stop], x.first[..., start:stop], second)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left[:, :, None, :] * right[:, None, :, :]


_Elementwise = Callable[[Tensor], Tensor]
_FUNCTIONS: Mapping[str, tuple[_Elementwise, _Elementwise, _Elementwise]] = {
    "none": (lambda z: z, torch.ones_like, torch.zeros_like),
    "relu": (torch.relu, lambda a: (a > 0).to(a), torch.zeros_like),
    "tanh": (torch.tanh, lambda a: 1.0 - a * a, lambda a: -2.0 * a * (1.0 - a * a)),
    "sigmoid": (
        torch.sigmoid,
        lambda a: a * (1.0 - a),
        lambda a: a * (1.0 - a) * (1.0 - 2.0 * a),
    ),
    "elu": (
        nn.functional.elu,
        lambda a: torch.where(a > 0, 1.0, a + 1.0),
        lambda a: torch.where(a > 0, 0.0, a + 1.0),
    ),
    "softplus": (
        nn.functional.softplus,
        lambda a: 1.0 - torch.exp(-a),
        lambda a: (1.0 - torch.exp(-a)) * torch.exp(-a),
    ),
}

"""A learned one-step model of a constrained signal, affine in the action.

Source: Dalal, Dvijotham, Vecerik, Hester, Paduraru and Tassa, "Safe Exploration in Continuous
Action Spaces", 2018 (arXiv:1801.08757), section "Linear Safety-Signal Model". There the model is
c(s') ~ c(s) + g(s).u with a known c(s); here the offset is learned too, so that the signal need not
be a known function of the observation.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

SMALLEST_DEVIATION = 1e-6
"""Replaces the standard deviation of an entry that never changed, in the unit of the entry."""


class Affine(NamedTuple):
    """y[k+1] ~ offset + gain u: offset (batch, m) and gain (batch, m, nu), unit of the signal."""

    offset: Float[Tensor, "batch m"]
    gain: Float[Tensor, "batch m nu"]


class AffineSignalModel(nn.Module):
    """A perceptron from observations to the coefficients of y[k+1] ~ c(o) + g(o) u.

    Observations are normalised inside, and the coefficients scaled to the signal, by statistics
    that are part of the module's state.

    Args:
        nx: Number of observations.
        nu: Number of actions.
        m: Number of signals.
        hidden: Width of each hidden layer.
        generator: Draws the initial weights.
    """

    mean: Tensor
    deviation: Tensor
    signal_mean: Tensor
    signal_deviation: Tensor

    def __init__(
        self, nx: int, nu: int, m: int, *, hidden: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.nx, self.nu, self.m = nx, nu, m
        layers: list[nn.Module] = []
        width = nx
        for size in hidden:
            layers += [linear_layer(width, size, generator), nn.Tanh()]
            width = size
        self.layers = nn.Sequential(*layers, linear_layer(width, m * (1 + nu), generator))
        self.register_buffer("mean", torch.zeros(nx))
        self.register_buffer("deviation", torch.ones(nx))
        self.register_buffer("signal_mean", torch.zeros(m))
        self.register_buffer("signal_deviation", torch.ones(m))

    def forward(self, observation: Float[Tensor, "batch nx"]) -> Affine:
        """Return the coefficients at the observations, in the unit of the signal."""
        normalised = (observation - self.mean) / self.deviation
        output = self.layers(normalised).reshape(-1, self.m, 1 + self.nu)
        scaled = output * self.signal_deviation.unsqueeze(-1)
        return Affine(scaled[..., 0] + self.signal_mean, scaled[..., 1:])

    def predict(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> Float[Tensor, "batch m"]:
        """Return c(o) + g(o) u."""
        offset, gain = self.forward(observation)
        return offset + (gain @ action.unsqueeze(-1)).squeeze(-1)

    def set_statistics(
        self, observations: Float[Tensor, "samples nx"], signals: Float[Tensor, "samples m"]
    ) -> None:
        """Take means and standard deviations from data."""
        for name, data in (("", observations), ("signal_", signals)):
            mean, deviation = data.mean(0), data.std(0)
            getattr(self, f"{name}mean").copy_(mean)
            usable = torch.where(deviation > SMALLEST_DEVIATION, deviation, 1.0)
            getattr(self, f"{name}deviation").copy_(usable)


def linear_layer(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Make a layer whose weights come from the generator, not from the global one."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device=generator.device)
    bound = 1.0 / math.sqrt(inputs)
    for parameter in layer.parameters():
        drawn = torch.rand(parameter.shape, generator=generator, device=generator.device)
        parameter.data.copy_(bound * (2.0 * drawn - 1.0))
    return layer

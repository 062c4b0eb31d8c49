"""Critics of a safeguard as networks: their values, and their gradients by the action."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from safectl.safeguards.affine_signal import linear_layer
from safectl.safeguards.cost_critic import Slope

Combination = Literal["mean", "max"]


class ScoreNetwork(nn.Module):
    """Perceptrons from an observation, and an action if nu > 0, to m scores; one or an ensemble.

    Observations are normalised inside by statistics that are part of the module's state.

    Args:
        nx: Number of observations.
        nu: Number of actions; 0 for a value of the state.
        m: Number of scores.
        hidden: Width of each hidden layer; tanh between them.
        members: Networks that are combined.
        combination: Mean or maximum of their scores; the maximum of a cost is the cautious one.
        generator: Draws the initial weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        nx: int,
        nu: int,
        m: int = 1,
        *,
        hidden: Sequence[int] = (64, 64),
        members: int = 1,
        combination: Combination = "mean",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.nx, self.nu, self.m, self.combination = nx, nu, m, combination
        widths = (nx + nu, *hidden, m)
        self.members = nn.ModuleList(_perceptron(widths, generator) for _ in range(members))
        self._layers = [
            [layer for layer in member.children() if isinstance(layer, nn.Linear)]
            for member in self.members
        ]  # the same layers, within reach: calling modules costs more than small products
        self.register_buffer("mean", torch.zeros(nx))
        self.register_buffer("deviation", torch.ones(nx))

    def each(
        self,
        observation: Float[Tensor, "batch nx"],
        action: Float[Tensor, "batch nu"] | None = None,
    ) -> Float[Tensor, "members batch m"]:
        """Return the scores of every member; a loss is taken of these."""
        inputs = self._inputs(observation, action)
        return torch.stack([_run(layers, inputs)[-1] for layers in self._layers])

    def forward(
        self,
        observation: Float[Tensor, "batch nx"],
        action: Float[Tensor, "batch nu"] | None = None,
    ) -> Float[Tensor, "batch m"]:
        """Return the combined scores."""
        if len(self._layers) == 1:
            return _run(self._layers[0], self._inputs(observation, action))[-1]
        scores = self.each(observation, action)
        return scores.mean(0) if self.combination == "mean" else scores.amax(0)

    @torch.no_grad()
    def slope_at(self, observation: Float[Tensor, "batch nx"]) -> Callable[[Tensor], Slope]:
        """Return combined scores and their gradients as a function of the action, without autograd.

        What the observation adds to the first layers is computed once.
        """
        normalised = self._inputs(observation, None)
        if len(observation) == len(self._layers) == 1 and observation.is_cpu:
            return _row_slope(self._layers[0], normalised)
        bases = [_base(layers[0], normalised) for layers in self._layers]

        @torch.no_grad()
        def slope(action: Tensor) -> Slope:
            pairs = zip(self._layers, bases, strict=True)
            found = [_slope(layers, base, action) for layers, base in pairs]
            return found[0] if len(found) == 1 else _combine(found, self.combination)

        return slope

    def _inputs(self, observation: Tensor, action: Tensor | None) -> Tensor:
        normalised = (observation - self.mean) / self.deviation
        return normalised if action is None else torch.cat([normalised, action], 1)


@dataclass(frozen=True, slots=True, eq=False)
class LearnedCost:
    """Q_c(s, a) and V_c(s) as networks; a cost critic with a scale that does not saturate.

    Attributes:
        value_network: From observations.
        cost_network: From observations and actions.
        is_probability: Whether costs are sigmoid(score), learned by cross-entropy, and scores their
            logits; else costs are the scores.
    """

    value_network: ScoreNetwork
    cost_network: ScoreNetwork
    is_probability: bool = True

    def value(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return V_c(s)."""
        return self._cost(self.value_network(observation))

    def cost(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Float[Tensor, "batch m"]:
        """Return Q_c(s, a)."""
        return self._cost(self.cost_network(observation, action))

    def scale(self, cost: Float[Tensor, "batch m"], /) -> Float[Tensor, "batch m"]:
        """Return the logits of probabilities, held within what the dtype can tell from 0 and 1."""
        if not self.is_probability:
            return cost
        resolution = torch.finfo(cost.dtype).eps
        return torch.where(cost >= 1.0, torch.finfo(cost.dtype).max, cost.logit(eps=resolution))

    def slope(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Slope:
        """Return the scores and their gradients by the action."""
        return self.slope_at(observation)(action)

    def slope_at(self, observation: Float[Tensor, "batch nx"], /) -> Callable[[Tensor], Slope]:
        """Return the slope as a function of the action."""
        return self.cost_network.slope_at(observation)

    def _cost(self, score: Tensor) -> Tensor:
        return score.sigmoid() if self.is_probability else score


@dataclass(frozen=True, slots=True, eq=False)
class LearnedSafety:
    """Psi(s) and A_Psi(s, a) as networks, in cost form: V_c = 1 - Psi, Q_c = 1 - Psi - A_Psi.

    Attributes:
        safety: Its scores are the logits of Psi.
        advantage: Its scores are A_Psi, with m = 1.
    """

    safety: ScoreNetwork
    advantage: ScoreNetwork

    def value(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return 1 - Psi(s), without the rounding of a difference."""
        return torch.sigmoid(-self.safety(observation))

    def cost(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Float[Tensor, "batch m"]:
        """Return 1 - Psi(s) - A_Psi(s, a)."""
        advantage: Tensor = self.advantage(observation, action)
        return self.value(observation) - advantage

    def scale(self, cost: Float[Tensor, "batch m"], /) -> Float[Tensor, "batch m"]:
        """Return the cost: it is linear in the advantage, which has no sigmoid."""
        return cost

    def slope(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Slope:
        """Return the costs and their gradients by the action."""
        return self.slope_at(observation)(action)

    def slope_at(self, observation: Float[Tensor, "batch nx"], /) -> Callable[[Tensor], Slope]:
        """Return the slope as a function of the action; Psi is computed once."""
        value, advantage = self.value(observation).detach(), self.advantage.slope_at(observation)

        def slope(action: Tensor) -> Slope:
            score, gradient = advantage(action)
            return Slope(value - score, -gradient)

        return slope

    @torch.no_grad()
    def for_row(self, observation: Float[Tensor, "1 nx"], /) -> "LearnedSafety":
        """Return the critic of this observation, whose Psi is computed; rows may repeat it."""
        return _SafetyOfRow(self.safety, self.advantage, self.value(observation))


@dataclass(frozen=True, slots=True, eq=False)
class _SafetyOfRow(LearnedSafety):
    """A critic that is asked about one observation; `known` is its V_c there."""

    known: Tensor

    def value(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        return self.known.expand(len(observation), -1)


def _perceptron(widths: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [linear_layer(inputs, outputs, generator), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _run(layers: Sequence[nn.Linear], inputs: Tensor) -> list[Tensor]:
    """Return the inputs and the outputs of every layer."""
    outputs = [inputs]
    for layer in layers[:-1]:
        outputs.append(nn.functional.linear(outputs[-1], layer.weight, layer.bias).tanh())
    outputs.append(nn.functional.linear(outputs[-1], layers[-1].weight, layers[-1].bias))
    return outputs


def _base(layer: nn.Linear, normalised: Tensor) -> Tensor:
    """Return what the observation adds to the sums of the first layer."""
    weight = layer.weight[:, : normalised.shape[1]]
    return nn.functional.linear(normalised, weight, layer.bias)


def _slope(layers: Sequence[nn.Linear], base: Tensor, action: Tensor) -> Slope:
    """Return the outputs of a tanh perceptron and their gradients by the action.

    The chain rule from the last layer back: dy/dx_k = dy/dx_{k+1} diag(1 - x_{k+1}^2) W_k.
    """
    by_action = layers[0].weight[:, -action.shape[1] :]
    score, hidden = torch.addmm(base, action, by_action.T), []
    for layer in layers[1:]:
        hidden.append(score.tanh())
        score = nn.functional.linear(hidden[-1], layer.weight, layer.bias)
    if not hidden:
        return Slope(score, by_action.expand(len(action), -1, -1))
    adjoint = layers[-1].weight.expand(len(action), -1, -1)
    weights = [by_action, *(layer.weight for layer in layers[1:-1])]
    for weight, output in zip(reversed(weights), reversed(hidden), strict=True):
        adjoint = (adjoint * (1.0 - output * output).unsqueeze(1)) @ weight
    return Slope(score, adjoint)


def _row_slope(layers: Sequence[nn.Linear], normalised: Tensor) -> Callable[[Tensor], Slope]:
    """Return what `_slope` does as a function of the action, for one row.

    In NumPy: a product of this size costs less than calling torch does.
    """
    first, *later = [layer.weight.detach().numpy() for layer in layers]
    base, *biases = [layer.bias.detach().numpy() for layer in layers]
    by_action = first[:, normalised.shape[1] :]
    base = base + first[:, : normalised.shape[1]] @ normalised.detach().numpy()[0]
    weights = [by_action, *later]

    def slope(action: Tensor) -> Slope:
        score, hidden = base + by_action @ action.numpy()[0], []
        for weight, bias in zip(later, biases, strict=True):
            hidden.append(np.tanh(score))
            score = weight @ hidden[-1] + bias
        adjoint = weights[-1]
        for weight, output in zip(weights[-2::-1], hidden[::-1], strict=True):
            adjoint = (adjoint * (1.0 - output * output)) @ weight
        return Slope(torch.from_numpy(score[None]), torch.from_numpy(adjoint[None]))

    return slope


def _combine(found: Sequence[Slope], combination: Combination) -> Slope:
    scores = torch.stack([slope.score for slope in found])
    gradients = torch.stack([slope.gradient for slope in found])
    if combination == "mean":
        return Slope(scores.mean(0), gradients.mean(0))
    largest = scores.argmax(0, keepdim=True)
    index = largest.unsqueeze(-1).expand(-1, -1, -1, gradients.shape[-1])
    return Slope(scores.gather(0, largest)[0], gradients.gather(0, index)[0])

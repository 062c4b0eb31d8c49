"""The learned cost-to-go Q_c(s, a) of the off-policy trainers, its targets and its gradient."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from safectl.errors import RangeError
from safectl.safeguards.cost_critic import Slope
from safectl_agents.acs.lower import Actor

Array = NDArray[Any]
Target = Literal["first_hit", "sum"]


@dataclass(frozen=True, slots=True)
class CriticSettings:
    """How Q_c is learned.

    Raises:
        RangeError: If a number lies outside its range.
    """

    target: Target = "sum"
    """`sum`: y = c + (1 - done) gamma V(s'), a discounted number of violations, at or above the
    probability of one. `first_hit`: y = c + (1 - c) (1 - done) gamma V(s'), that probability
    discounted; it is 1 for every action where the next step violates anyway, so that nothing shows
    the way back."""
    discount: float = 0.99
    """gamma of the cost, in (0, 1]."""
    learning_rate: float = 3e-4
    """Step size of Adam, > 0."""
    hidden: tuple[int, ...] = (256, 256)
    """Units per hidden layer, ReLU."""
    heads: int = 1
    """Independent critics, >= 1; the largest counts."""
    tau: float = 0.005
    """Share of the new weights in the target critic per update, in (0, 1]."""

    def __post_init__(self) -> None:
        for name in ("discount", "tau"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise RangeError(name, value=getattr(self, name), expected="a number in (0, 1]")
        if not self.learning_rate > 0.0:
            raise RangeError("learning_rate", value=self.learning_rate, expected="a number > 0")
        if self.heads < 1 or min(self.hidden, default=1) < 1:
            expected = "at least one head and one unit per layer"
            raise RangeError("heads, hidden", value=(self.heads, self.hidden), expected=expected)


class CostNetwork(nn.Module):
    """Q_c(s, a): the largest of several multilayer perceptrons on [s, a].

    Actions are scaled to [-1, 1]. Weights come from torch's global generator.
    """

    def __init__(self, nx: int, nu: int, hidden: tuple[int, ...], heads: int = 1) -> None:
        super().__init__()
        self.nu = nu
        self.heads = nn.ModuleList(perceptron((nx + nu, *hidden, 1)) for _ in range(heads))

    def each(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> list[Float[Tensor, "batch 1"]]:
        """Return the values of all heads."""
        inputs = torch.cat([observation, action], dim=1)
        return [head(inputs) for head in self.heads]

    def forward(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> Float[Tensor, "batch 1"]:
        """Return the largest value."""
        values = self.each(observation, action)
        return values[0] if len(values) == 1 else torch.cat(values, dim=1).amax(1, keepdim=True)

    @torch.no_grad()
    def slope(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> Slope:
        """Return Q_c and dQ_c/da in closed form, several times faster than a recorded graph."""
        inputs = torch.cat([observation, action], dim=1)
        slopes = [_slope(head, inputs, self.nu) for head in self.heads]
        if len(slopes) == 1:
            return slopes[0]
        scores = torch.cat([slope.score for slope in slopes], dim=1)
        largest = scores.argmax(1, keepdim=True)
        gradients = torch.cat([slope.gradient for slope in slopes], dim=1)
        index = largest.unsqueeze(2).expand(-1, 1, self.nu)
        return Slope(scores.gather(1, largest), gradients.gather(1, index))


@dataclass(frozen=True, slots=True)
class PolicyCritic:
    """A network and a task policy as the cost critic of a safeguard.

    V_c(s) = Q_c(s, pi(s)). Actions are in their units; the network sees them scaled to [-1, 1].

    Attributes:
        network: Q_c.
        actor: pi, from observations to scaled actions.
        middle: Of the action limits, shape (nu,).
        half: Half of their width, shape (nu,).
    """

    network: CostNetwork
    actor: Actor
    middle: Float[Tensor, " nu"]
    half: Float[Tensor, " nu"]

    def value(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch 1"]:
        """Return V_c(s)."""
        value: Tensor = self.network(observation, self.actor(observation))
        return value

    def cost(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Float[Tensor, "batch 1"]:
        """Return Q_c(s, a)."""
        cost: Tensor = self.network(observation, (action - self.middle) / self.half)
        return cost

    def scale(self, cost: Float[Tensor, "batch 1"], /) -> Float[Tensor, "batch 1"]:
        """Return the cost: a linear head does not saturate."""
        return cost

    def slope(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Slope:
        """Return Q_c(s, a) and its gradient by the action in its units."""
        found = self.network.slope(observation, (action - self.middle) / self.half)
        return Slope(found.score, found.gradient / self.half)

    def slope_at(self, observation: Float[Tensor, "batch nx"], /) -> Callable[[Tensor], Slope]:
        """Return `slope` at these observations; for one row and one head in NumPy, which is faster.

        A product of this size costs less than calling torch does.
        """
        heads = self.network.heads
        if not len(observation) == len(heads) == 1 or not observation.is_cpu:
            return partial(self.slope, observation)
        slope = _row_slope(heads[0], observation)
        middle, half = self.middle.numpy(), self.half.numpy()

        def scaled(action: Tensor) -> Slope:
            score, gradient = slope((action.numpy()[0] - middle) / half)
            rows = (score[None], (gradient / half)[None, None])
            return Slope(*(torch.from_numpy(row) for row in rows))

        return scaled


def cost_target(
    cost: Float[Tensor, "batch 1"],
    done: Float[Tensor, "batch 1"],
    following: Float[Tensor, "batch 1"],
    *,
    target: Target,
    discount: float,
) -> Float[Tensor, "batch 1"]:
    """Return the regression target of Q_c; a first-hit value is kept in [0, 1].

    Args:
        cost: 0 or 1.
        done: 1 where the episode failed; a time limit bootstraps.
        following: Q_c of the target critic at the next observation and action.
        target: Which form.
        discount: gamma of the cost.
    """
    if target == "sum":
        return cost + (1.0 - done) * discount * following
    return cost + (1.0 - cost) * (1.0 - done) * discount * following.clamp(0.0, 1.0)


class CostLearner:
    """A cost critic, its slow copy and its optimiser.

    Args:
        nx: Observations.
        nu: Actions.
        settings: How it learns.
        device: Of the networks.
    """

    def __init__(
        self, nx: int, nu: int, settings: CriticSettings, device: torch.device | str
    ) -> None:
        self.settings = settings
        self.critic = CostNetwork(nx, nu, settings.hidden, settings.heads).to(device)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(requires_grad=False)
        self.optimizer = torch.optim.Adam(
            self.critic.parameters(), lr=settings.learning_rate, fused=True
        )

    def update(
        self,
        observation: Float[Tensor, "batch nx"],
        action: Float[Tensor, "batch nu"],
        target: Float[Tensor, "batch 1"],
    ) -> float:
        """Take one step of least squares towards targets; return the loss."""
        heads = self.critic.each(observation, action)
        loss = sum((functional.mse_loss(head, target) for head in heads), torch.zeros(()))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def following(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> Float[Tensor, "batch 1"]:
        """Return the value of a next observation under an action there, by the slow copy."""
        value: Tensor = self.critic_target(observation, action)
        return value

    def target(
        self,
        cost: Float[Tensor, "batch 1"],
        done: Float[Tensor, "batch 1"],
        following: Float[Tensor, "batch 1"],
    ) -> Float[Tensor, "batch 1"]:
        """Return the targets that follow from the value of the next observation."""
        settings = self.settings
        return cost_target(
            cost, done, following, target=settings.target, discount=settings.discount
        )

    def track(self) -> None:
        """Move the slow copy."""
        polyak(self.critic.parameters(), self.critic_target.parameters(), self.settings.tau)


@torch.no_grad()
def polyak(source: Iterable[Tensor], target: Iterable[Tensor], tau: float) -> None:
    """Move targets by w' <- (1 - tau) w' + tau w, all tensors in two calls."""
    slow, fast = list(target), list(source)
    torch._foreach_mul_(slow, 1.0 - tau)
    torch._foreach_add_(slow, fast, alpha=tau)


def perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _row_slope(head: nn.Module, observation: Tensor) -> Callable[[Array], tuple[Array, Array]]:
    """Return what `_slope` does as a function of one action: value (1,) and gradient (nu,)."""
    assert isinstance(head, nn.Sequential)
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    first, *later = [layer.weight.detach().numpy() for layer in linear]
    base, *biases = [layer.bias.detach().numpy() for layer in linear]
    nx = observation.shape[1]
    base, by_action = base + first[:, :nx] @ observation.detach().numpy()[0], first[:, nx:]
    weights = [by_action, *later]

    def slope(action: Array) -> tuple[Array, Array]:
        score, active = base + by_action @ action, []
        for weight, bias in zip(later, biases, strict=True):
            active.append(score > 0.0)
            score = weight @ np.maximum(score, 0.0) + bias
        gradient = weights[-1][0]
        for weight, mask in zip(weights[-2::-1], active[::-1], strict=True):
            gradient = (gradient * mask) @ weight
        return score, gradient

    return slope


def _slope(head: nn.Module, inputs: Tensor, nu: int) -> Slope:
    assert isinstance(head, nn.Sequential)
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    hidden, active = inputs, []
    for layer in linear[:-1]:
        before = functional.linear(hidden, layer.weight, layer.bias)
        active.append(before > 0.0)
        hidden = before.relu()
    last = linear[-1]
    gradient = last.weight.expand(len(inputs), -1)
    for layer, mask in zip(reversed(linear[:-1]), reversed(active), strict=True):
        gradient = (gradient * mask) @ layer.weight
    score = functional.linear(hidden, last.weight, last.bias)
    return Slope(score, gradient[:, -nu:].unsqueeze(1))

"""Critics that predict how unsafe an action is, and the bound that a chance constraint sets them.

After Chen et al., IROS 2024 (arXiv 2310.03379), who state the safety form; the cost form follows
from it by V_c = 1 - Psi and Q_c = 1 - Psi - A.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError


@runtime_checkable
class CostCritic(Protocol):
    """Predicts m costs; for a first-hit critic each is a probability of becoming unsafe."""

    def value(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return V_c(s), the cost to come under the policy that the critic describes."""
        ...

    def cost(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Float[Tensor, "batch m"]:
        """Return Q_c(s, a), the cost to come after this action; differentiable in the action."""
        ...


class Slope(NamedTuple):
    """Scores (batch, m) and their gradients by the action (batch, m, nu)."""

    score: Float[Tensor, "batch m"]
    gradient: Float[Tensor, "batch m nu"]


@runtime_checkable
class ScoredCritic(CostCritic, Protocol):
    """A critic with a scale on which its gradient does not vanish, and with its own gradient.

    A sigmoid saturates where a state is clearly safe or unsafe; its logit has the same order and
    so the same admissible actions, and does not.
    """

    def scale(self, cost: Float[Tensor, "batch m"], /) -> Float[Tensor, "batch m"]:
        """Map costs to scores: strictly increasing, finite for every finite cost."""
        ...

    def slope(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Slope:
        """Return scale(Q_c(s, a)) and its gradient by the action, without a graph."""
        ...


@runtime_checkable
class PreparedCritic(ScoredCritic, Protocol):
    """A critic that computes once what several slopes at the same observations share."""

    def slope_at(self, observation: Float[Tensor, "batch nx"], /) -> Callable[[Tensor], Slope]:
        """Return `slope` at these observations, a function of the action alone."""
        ...


@runtime_checkable
class RowCritic(CostCritic, Protocol):
    """A critic that computes once what all its costs at one observation share."""

    def for_row(self, observation: Float[Tensor, "1 nx"], /) -> CostCritic:
        """Return the critic of this observation; it is asked about no other, but may be in rows."""
        ...


def is_scored(critic: CostCritic) -> TypeGuard[ScoredCritic]:
    """Return whether a critic is a `ScoredCritic`."""
    return _follows(type(critic), ScoredCritic)


def is_prepared(critic: CostCritic) -> TypeGuard[PreparedCritic]:
    """Return whether a critic is a `PreparedCritic`."""
    return _follows(type(critic), PreparedCritic)


def is_row_critic(critic: CostCritic) -> TypeGuard[RowCritic]:
    """Return whether a critic is a `RowCritic`."""
    return _follows(type(critic), RowCritic)


@cache
def _follows(kind: type, protocol: type) -> bool:
    """Ask once per class, of the methods of the class: asking takes as long as a small network."""
    return issubclass(kind, protocol)


@dataclass(frozen=True, slots=True)
class SafetyForm:
    """A safety value and a safety advantage as a cost critic with one cost.

    Attributes:
        safety: Psi(s), the probability of staying safe, (batch, nx) to (batch, 1).
        advantage: A_Psi(s, a), what the action changes of it, to (batch, 1).
    """

    safety: Callable[[Tensor], Tensor]
    advantage: Callable[[Tensor, Tensor], Tensor]

    def value(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch 1"]:
        """Return 1 - Psi(s)."""
        return 1.0 - self.safety(observation)

    def cost(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Float[Tensor, "batch 1"]:
        """Return 1 - Psi(s) - A_Psi(s, a)."""
        return 1.0 - self.safety(observation) - self.advantage(observation, action)


@dataclass(frozen=True, slots=True)
class ChanceBound:
    """The largest admissible cost: delta(s) = (1 - alpha) V_c(s) + alpha eps.

    Where V_c < eps an action may spend the share alpha of the slack; where V_c > eps it must win
    back the share alpha of the excess. With `recovery_rate` 1 this is the constant eps.
    """

    tolerance: float = 0.1
    """eps: tolerated probability of being unsafe in the next step; above 1 it is a warm-up."""
    recovery_rate: float = 0.8
    """alpha, in (0, 1]."""
    gamma_correction: float = 1.0
    """gamma_c of a discounted critic, in (0, 1]: multiplies the bound, so that E[V_c] stays at or
    below eps and not only the probability of the next step."""

    def __post_init__(self) -> None:
        if not self.tolerance > 0.0:
            raise RangeError("tolerance", value=self.tolerance, expected="above zero")
        for name in ("recovery_rate", "gamma_correction"):
            number = getattr(self, name)
            if not 0.0 < number <= 1.0:
                raise RangeError(name, value=number, expected="a number in (0, 1]")

    def threshold(self, value: Float[Tensor, "batch m"]) -> Float[Tensor, "batch m"]:
        """Return delta(s) from V_c(s)."""
        share = self.recovery_rate
        return self.gamma_correction * ((1.0 - share) * value + share * self.tolerance)


def epsilon_schedule(
    epoch: int, *, start: float = 4.0, step: float = 0.3, floor: float = 0.3
) -> float:
    """Return eps in an epoch: start - step in epoch 0, then step less in each, down to the floor.

    The defaults are those of the authors' on-policy prototype; with costs in [0, 1] and alpha = 0.8
    nothing is corrected while eps is 1.25 or more.
    """
    return max(start - step * (epoch + 1), floor)


def slope_function(
    critic: CostCritic, observation: Float[Tensor, "batch nx"]
) -> Callable[[Tensor], Slope]:
    """Return the critic's own slope at some observations, or one of its costs by autograd.

    Each row is repeated m times, so that one backward pass serves all costs. Works under
    `torch.no_grad`; leaves no gradient in the parameters.
    """
    if is_prepared(critic):
        return critic.slope_at(observation)
    if is_scored(critic):
        return partial(critic.slope, observation)

    def slope(action: Tensor) -> Slope:
        with torch.enable_grad():
            leaf = action.detach().requires_grad_(True)
            cost = critic.cost(observation, leaf)
            m = cost.shape[1]
            if m > 1:
                leaf = action.detach().repeat_interleave(m, 0).requires_grad_(True)
                cost = critic.cost(observation.repeat_interleave(m, 0), leaf)
                cost = cost.reshape(-1, m, m).diagonal(dim1=1, dim2=2)
            (gradient,) = torch.autograd.grad(cost.sum(), leaf)
        return Slope(cost.detach(), gradient.reshape(len(action), m, -1))

    return slope

"""What the on-policy trainer learns of safety: Psi(s) by cross-entropy, A_Psi(s, a) by squares.

After Chen et al. (IROS 2024). As probabilities ask: Psi has a sigmoid, the discount is 1, and an
episode that the rollout cuts is labelled by Psi at the cut.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from safectl.errors import RangeError
from safectl.models import LearnedSafety, ScoreNetwork, budget_labels, horizon_labels
from safectl_agents.acs.watched import Rollout

_NARROWEST = 0.1  # deviation by which an observation that hardly varied at first is divided


@dataclass(frozen=True, slots=True)
class SafetySettings:
    """Labels and learning; the defaults are those of the authors' prototype.

    Raises:
        RangeError: If a number lies outside its range.
    """

    label: Literal["budget", "horizon"] = "budget"
    """`budget`: does the whole episode cost less than `budget`? `horizon`: do the next `horizon`
    steps cost nothing? Its gradients are denser, and it fits tasks that allow no violation."""
    budget: float = 25.0
    """Cost of an episode from which on it is unsafe; 0 allows none."""
    horizon: int | None = None
    """Steps that count; None for the rest of the episode."""
    learning_rate: float = 1e-3
    """Of Adam, > 0."""
    safety_iterations: int = 80
    """Steps of Adam for Psi per rollout, on all of it, >= 0."""
    advantage_iterations: int = 160
    """The same for A_Psi."""
    hidden: tuple[int, ...] = (64, 64)
    """Units per hidden layer, tanh."""
    violating_share: float = 0.2
    """Rows kept from violating episodes of earlier rollouts, as a share of a rollout, >= 0: once
    the safeguard works, nothing else tells the critics what is unsafe."""

    def __post_init__(self) -> None:
        if not self.budget >= 0.0:
            raise RangeError("budget", value=self.budget, expected="a number >= 0")
        if min(self.safety_iterations, self.advantage_iterations) < 0:
            value = (self.safety_iterations, self.advantage_iterations)
            expected = "integers >= 0"
            raise RangeError(
                "safety_iterations, advantage_iterations", value=value, expected=expected
            )
        if not self.violating_share >= 0.0:
            raise RangeError("violating_share", value=self.violating_share, expected="at least 0")
        if self.horizon is not None and self.horizon < 1:
            raise RangeError("horizon", value=self.horizon, expected="at least 1, or None")
        if not self.learning_rate > 0.0:
            raise RangeError("learning_rate", value=self.learning_rate, expected="a number > 0")


class _Rows(NamedTuple):
    """What the critics are fitted to: one row per step."""

    observation: Tensor
    action: Tensor
    label: Tensor

    def select(self, rows: Tensor | slice) -> "_Rows":
        return _Rows(*(part[rows] for part in self))

    def join(self, other: "_Rows") -> "_Rows":
        return _Rows(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


class _Memory(nn.Module):
    """The newest rows of violating episodes, as buffers, so that checkpoints keep them."""

    def __init__(self, nx: int, nu: int, capacity: int) -> None:
        super().__init__()
        self.rows: Tensor
        self.count: Tensor
        self.rollouts: Tensor  # fitted so far, over every call of `learn`
        self.widths = [nx, nu, 1]
        self.register_buffer("rows", torch.zeros(capacity, nx + nu + 1))
        for name in ("count", "rollouts"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    def recall(self) -> _Rows:
        return _Rows(*self.rows[: int(self.count)].split_with_sizes(self.widths, 1))

    def keep(self, new: _Rows) -> None:
        newest_first = torch.cat(new, 1).flip(0)
        rows = torch.cat([newest_first, self.rows[: int(self.count)]])[: len(self.rows)]
        self.rows[: len(rows)] = rows
        self.count.fill_(len(rows))


class SafetyLearner:
    """Networks for Psi and A_Psi with their optimisers.

    Args:
        nx: Observations.
        nu: Actions, in their units.
        settings: How it learns.
        rows: Steps of a rollout, of all environments.
        seed: Of the initial weights.
        device: Of the networks.
    """

    def __init__(
        self,
        nx: int,
        nu: int,
        settings: SafetySettings,
        *,
        rows: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.settings = settings
        generator = torch.Generator().manual_seed(seed)
        self.safety, self.advantage = (
            ScoreNetwork(nx, size, hidden=settings.hidden, generator=generator).float().to(device)
            for size in (0, nu)
        )
        self.safety_optimizer, self.advantage_optimizer = (
            torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
            for network in (self.safety, self.advantage)
        )

        self.memory = _Memory(nx, nu, round(settings.violating_share * rows)).to(device)

    @property
    def critic(self) -> LearnedSafety:
        """Both networks as a cost critic."""
        return LearnedSafety(self.safety, self.advantage)

    def labels(
        self, rollout: Rollout, spent: Float[Tensor, " rows"]
    ) -> Float[Tensor, "steps rows"]:
        """Return y per step, 1 for safe.

        Args:
            rollout: What happened.
            spent: Cost before the first step, of the episodes that began earlier.
        """
        with torch.no_grad():
            at_cut = self.safety(rollout.last).sigmoid().squeeze(-1)
        settings = self.settings
        if settings.label == "horizon":
            return horizon_labels(rollout.cost, rollout.end, at_cut, horizon=settings.horizon)
        return budget_labels(rollout.cost, rollout.end, at_cut, budget=settings.budget, spent=spent)

    def fit(self, rollout: Rollout, spent: Float[Tensor, " rows"]) -> dict[str, float]:
        """Learn from a rollout; return the last losses and the share of safe labels.

        The statistics of the very first one normalise the observations.

        Args:
            rollout: What happened.
            spent: As in `labels`.
        """
        if not self.memory.rollouts:
            normalise_by(rollout, self.safety, self.advantage)
        settings, new = self.settings, self._rows(rollout, spent)
        rows = new.join(self.memory.recall())
        # The sum of Psi(s') - Psi(s) over the rest of the episode, with y in place of its end.
        with torch.no_grad():
            gain = rows.label - self.safety(rows.observation).sigmoid()
        losses = {"safety_loss": 0.0, "advantage_loss": 0.0}
        for _ in range(settings.safety_iterations):
            score = self.safety.each(rows.observation)
            label = rows.label.expand_as(score)
            loss = functional.binary_cross_entropy_with_logits(score, label)
            losses["safety_loss"] = descend(self.safety_optimizer, self.safety, loss)
        for _ in range(settings.advantage_iterations):
            score = self.advantage.each(rows.observation, rows.action)
            loss = functional.mse_loss(score, gain.expand_as(score))
            losses["advantage_loss"] = descend(self.advantage_optimizer, self.advantage, loss)
        innocent = torch.ones_like(spent)
        safe = budget_labels(rollout.cost, rollout.end, innocent, budget=0.0, spent=spent)
        self.memory.keep(new.select((safe < 1.0).flatten()))
        self.memory.rollouts += 1
        return {**losses, "safe_labels": float(new.label.mean())}

    @torch.no_grad()
    def _rows(self, rollout: Rollout, spent: Tensor) -> _Rows:
        observation, action = rollout.observation.flatten(0, 1), rollout.action.flatten(0, 1)
        return _Rows(observation, action, self.labels(rollout, spent).reshape(-1, 1))


def normalise_by(rollout: Rollout, *networks: ScoreNetwork) -> None:
    """Let networks normalise observations by the statistics of a rollout."""
    deviation, mean = torch.std_mean(rollout.observation.flatten(0, 1), 0)
    for network in networks:
        network.mean.copy_(mean)
        network.deviation.copy_(deviation.clamp(min=_NARROWEST))


def descend(optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> float:
    """Take one step down a loss of one network; return the loss."""
    weights = list(network.parameters())
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient
    optimizer.step()
    return float(loss.detach())

"""ACS, USL and the Lagrangian baselines: a cost critic, a projection, a term in the actor's loss.

An action is admissible where (after Chen et al., IROS 2024, arXiv 2310.03379)

    Q_c(s, a) <= delta(s) = (1 - alpha) V_c(s) + alpha eps,    V_c(s) = Q_c(s, pi(s)).

alpha = 1 is the fixed threshold of USL (Zhang et al. 2022, arXiv:2212.05727). The projection uses
the slow copy of the critic, the actor's loss the critic itself.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safectl.errors import RangeError
from safectl.safeguards.correction import FLATTEST, CorrectionOptions, correct
from safectl.safeguards.cost_critic import ChanceBound
from safectl.safeguards.evidence import Limits
from safectl_agents.acs.critic import CostLearner, CriticSettings, PolicyCritic
from safectl_agents.acs.lower import Actor, Actors, Corrected, Proposed, Sizes, kept
from safectl_agents.acs.replay import CostSamples

Penalty = Literal["none", "exact", "lagrange"]


@dataclass(frozen=True, slots=True)
class ProjectionSettings:
    """Threshold, projection and penalty; the defaults are ACS's.

    Raises:
        RangeError: If a number lies outside its range.
    """

    bound: ChanceBound = field(default_factory=ChanceBound)
    """Tolerance eps and recovery rate alpha; alpha = 1 is the fixed threshold."""
    project: bool = True
    """Whether actions are corrected at all."""
    correction: CorrectionOptions = field(
        default_factory=lambda: CorrectionOptions(mode="gradient")
    )
    """How actions scaled to [-1, 1] are moved; no random candidates."""
    corrected_target: bool = False
    """Whether the target of Q_c takes the next action as the safeguard would execute it, found by
    one Newton step. Then Q_c is the cost of the safeguarded policy, as the theory asks for."""
    penalty: Penalty = "exact"
    """`exact`: kappa relu(Q_c - delta). `lagrange`: lambda (Q_c - eps), lambda learned."""
    kappa: float = 5.0
    """Weight of the exact penalty, >= 0."""
    multiplier_rate: float = 1e-5
    """Step size of lambda, > 0."""
    critic: CriticSettings = field(default_factory=CriticSettings)
    """How Q_c is learned."""

    def __post_init__(self) -> None:
        if not self.multiplier_rate > 0.0:
            raise RangeError("multiplier_rate", value=self.multiplier_rate, expected="above zero")
        if self.correction.candidates:
            expected = "0: the trainers draw none"
            raise RangeError("candidates", value=self.correction.candidates, expected=expected)
        if not self.kappa >= 0.0:
            raise RangeError("kappa", value=self.kappa, expected="a number >= 0")

    def build(self, sizes: Sizes) -> "Projection":
        """Make the untrained layer."""
        return Projection(self, sizes)


class _Multiplier(nn.Module):
    """lambda >= 0, kept in checkpoints as a buffer."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))


class Projection:
    """The lower layer with a learned cost-to-go."""

    def __init__(self, settings: ProjectionSettings, sizes: Sizes) -> None:
        self.settings = settings
        self.learner = CostLearner(sizes.nx, sizes.nu, settings.critic, sizes.device)
        self.multiplier = _Multiplier().to(sizes.device)
        one = torch.ones(sizes.nu, device=sizes.device)
        self._limits = Limits(-one, one)

    def correct(self, proposed: Proposed, actors: Actors) -> Corrected:
        """Descend Q_c from the proposals until delta is met; the best iterate if it never is.

        Where the critic is not finite, the middle of the limits.
        """
        if not self.settings.project:
            return kept(proposed)
        with torch.no_grad():
            critic = self.critic(actors.now)
            threshold = self.settings.bound.threshold(critic.value(proposed.observation))
            found = correct(
                critic,
                proposed.observation,
                proposed.action,
                threshold,
                self._limits,
                self.settings.correction,
            )
        known = found.residual.isfinite().unsqueeze(-1)
        action = found.action.where(known, 0.0)
        return Corrected(action, found.iterations, found.residual)

    def critic(self, actor: Actor) -> PolicyCritic:
        """Return the slow critic for scaled actions, with a policy for V_c."""
        zero = torch.zeros_like(self._limits.high)
        return PolicyCritic(self.learner.critic_target, actor, zero, self._limits.high)

    def update(
        self, batch: CostSamples, next_action: Float[Tensor, "batch nu"], actors: Actors
    ) -> dict[str, float]:
        """Fit Q_c to the executed actions, and to what follows them."""
        follow = self._followed if self.settings.corrected_target else self.learner.following
        following = follow(batch.next_observations, next_action)
        target = self.learner.target(batch.costs, batch.dones, following)
        loss = self.learner.update(batch.observations, batch.actions, target)
        return {"cost_critic_loss": loss}

    @torch.no_grad()
    def _followed(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return Q_c after one Newton step towards the bound, or without where that is less."""
        slope = self.learner.critic_target.slope(observation, action)
        cost, gradient = slope.score, slope.gradient.squeeze(1)
        excess = (cost - self.settings.bound.threshold(cost)).relu()
        square = gradient.square().sum(1, keepdim=True)
        moved = action - (excess / square.clamp(min=FLATTEST**2)) * gradient
        return torch.minimum(cost, self.learner.following(observation, moved.clamp(-1.0, 1.0)))

    def penalty(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> Tensor | None:
        """Return the exact penalty or the Lagrangian term; the threshold carries no gradient."""
        settings = self.settings
        if settings.penalty == "none":
            return None
        value = self.learner.critic(observation, action)
        if settings.penalty == "exact":
            excess: Tensor = value - settings.bound.threshold(value.detach())
            return settings.kappa * excess.relu().mean()
        excess = (value - settings.bound.tolerance).mean()
        multiplier = self.multiplier.value
        term = multiplier.clone() * excess
        multiplier.add_(settings.multiplier_rate * excess.detach()).clamp_(min=0.0)
        return term

    def track(self) -> None:
        """Move the slow copy of the critic."""
        self.learner.track()

    @property
    def parts(self) -> tuple[str, ...]:
        """Critic, slow copy, optimiser and multiplier."""
        return ("learner.critic", "learner.critic_target", "learner.optimizer", "multiplier")

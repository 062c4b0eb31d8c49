"""Recovery RL, as a baseline: a second policy takes over where the first one is too risky.

Source: Thananjeyan et al. 2021 (arXiv:2010.15920), model-free variant. The risk critic has the
first-hit target under the recovery policy, which minimises it.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safectl.errors import RangeError
from safectl_agents.acs.critic import CostLearner, CriticSettings, perceptron
from safectl_agents.acs.lower import Actors, Corrected, Proposed, Sizes
from safectl_agents.acs.replay import CostSamples


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """When the recovery policy takes over, and how it learns.

    Raises:
        RangeError: If a number is not positive.
    """

    limit: float = 0.1
    """delta: largest risk of a task action that is executed, > 0."""
    learning_rate: float = 3e-4
    """Step size of the recovery policy's Adam, > 0."""
    critic: CriticSettings = field(default_factory=lambda: CriticSettings("first_hit"))
    """How Q_risk is learned; its layers are the recovery policy's as well."""

    def __post_init__(self) -> None:
        for name in ("limit", "learning_rate"):
            if not getattr(self, name) > 0.0:
                raise RangeError(name, value=getattr(self, name), expected="a number > 0")

    def build(self, sizes: Sizes) -> "Recovery":
        """Make the untrained layer."""
        return Recovery(self, sizes)


class Recovery:
    """The recovery action where Q_risk(s, a) > delta, the task action elsewhere."""

    def __init__(self, settings: RecoverySettings, sizes: Sizes) -> None:
        self.settings = settings
        self.learner = CostLearner(sizes.nx, sizes.nu, settings.critic, sizes.device)
        layers = perceptron((sizes.nx, *settings.critic.hidden, sizes.nu))
        self.actor = nn.Sequential(*layers, nn.Tanh()).to(sizes.device)
        self.optimizer = torch.optim.Adam(
            self.actor.parameters(), lr=settings.learning_rate, fused=True
        )

    @torch.no_grad()
    def correct(self, proposed: Proposed, actors: Actors) -> Corrected:
        """Switch to the recovery policy where the proposal is too risky, or its risk no number."""
        risk = self.learner.critic_target(proposed.observation, proposed.action)
        risky = ~(risk <= self.settings.limit)
        if not bool(risky.any()):
            none = torch.zeros_like(risk).squeeze(1)
            return Corrected(proposed.action, none, none)
        recovery = self.actor(proposed.observation)
        action = torch.where(risky, recovery, proposed.action)
        after = self.learner.critic_target(proposed.observation, action)
        residual = (after - self.settings.limit).clamp(min=0.0).squeeze(1)
        return Corrected(action, risky.squeeze(1), residual)

    def update(
        self, batch: CostSamples, next_action: Float[Tensor, "batch nu"], actors: Actors
    ) -> dict[str, float]:
        """Fit Q_risk under the recovery policy, then lower it by that policy."""
        with torch.no_grad():
            following = self.actor(batch.next_observations)
        value = self.learner.following(batch.next_observations, following)
        target = self.learner.target(batch.costs, batch.dones, value)
        loss = self.learner.update(batch.observations, batch.actions, target)
        risk = self.learner.critic(batch.observations, self.actor(batch.observations)).mean()
        weights = list(self.actor.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(risk, weights), strict=True):
            weight.grad = gradient
        self.optimizer.step()
        return {"cost_critic_loss": loss, "recovery_risk": float(risk.detach())}

    def penalty(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> None:
        """Return nothing: the task policy learns from the reward alone."""

    def track(self) -> None:
        """Move the slow copy of the critic."""
        self.learner.track()

    @property
    def parts(self) -> tuple[str, ...]:
        """Critic, slow copy, recovery policy and both optimisers."""
        critic = ("learner.critic", "learner.critic_target", "learner.optimizer")
        return (*critic, "actor", "optimizer")

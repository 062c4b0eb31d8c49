"""ACS on soft actor-critic, in stable-baselines3's conventions."""

import torch
from stable_baselines3 import SAC
from torch import Tensor
from torch.nn import functional

from safectl_agents.acs.collect import set_gradients
from safectl_agents.acs.critic import polyak
from safectl_agents.acs.lower import Actors
from safectl_agents.acs.off_policy import Corrected
from safectl_agents.acs.replay import CostSamples


class ACSSAC(Corrected, SAC):
    """SAC whose executed actions a lower layer corrects; all else as in `ACSTD3`.

    The value V_c of a state is that of the policy's mean action. With a layer that never corrects
    and a penalty that never binds, the weights equal those of plain SAC bit for bit.

    Args:
        policy: As in the library, `"MlpPolicy"`.
        env: As in the library; costs come from `info["cost"]`.
        constraint: How cost is treated; ACS by default.
        cost: Reads the cost of a step from its `info`, in place of `info["cost"]`.
        options: The library's other arguments. Defaults that differ: those of
            `off_policy.defaults`.
    """

    @property
    def actors(self) -> Actors:
        """The mean action of the task policy, for the lower layer."""
        return Actors(self._mean, self._mean)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update entropy weight, critics, lower layer, actor and targets, as the library's SAC."""
        self.policy.set_training_mode(True)
        entropy = [] if self.ent_coef_optimizer is None else [self.ent_coef_optimizer]
        self.set_rates(self.actor.optimizer, self.critic.optimizer, *entropy)
        for index in range(gradient_steps):
            self._gradient_step(batch_size)
            if index % self.target_update_interval == 0:
                polyak(self.critic.parameters(), self.critic_target.parameters(), self.tau)
                self.collector.track()
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _gradient_step(self, batch_size: int) -> None:
        batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
        action, log_probability = self.actor.action_log_prob(batch.observations)
        log_probability = log_probability.reshape(-1, 1)
        weight = self._entropy_weight(log_probability)
        with torch.no_grad():
            following, log_next = self.actor.action_log_prob(batch.next_observations)
        loss = self._critic_loss(batch, following, weight * log_next.reshape(-1, 1))
        self.critic.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.critic.optimizer.step()
        curves = self.learn_costs(batch, following)
        values = torch.cat(self.critic(batch.observations, action), dim=1)
        value, _ = torch.min(values, dim=1, keepdim=True)
        actor_loss = (weight * log_probability - value).mean()
        penalty = self.lower.penalty(batch.observations, action)
        if penalty is not None:
            actor_loss = actor_loss + penalty
        set_gradients(actor_loss, self.actor)
        self.actor.optimizer.step()
        curves |= {"critic_loss": float(loss.detach()), "actor_loss": float(actor_loss.detach())}
        for name, number in curves.items():
            self.logger.record(f"train/{name}", number)

    def _critic_loss(self, batch: CostSamples, following: Tensor, entropy: Tensor) -> Tensor:
        with torch.no_grad():
            values = torch.cat(self.critic_target(batch.next_observations, following), dim=1)
            value, _ = torch.min(values, dim=1, keepdim=True)
            target = self.reward_target(batch, value - entropy)
        action = self.learned_action(batch)
        losses = [functional.mse_loss(q, target) for q in self.critic(batch.observations, action)]
        return 0.5 * sum(losses, torch.zeros(()))

    def _entropy_weight(self, log_probability: Tensor) -> Tensor:
        """Return the weight of the entropy as it was, and move it by its own loss if it learns."""
        if self.ent_coef_optimizer is None or self.log_ent_coef is None:
            return self.ent_coef_tensor
        weight = torch.exp(self.log_ent_coef.detach())
        excess = (log_probability + float(self.target_entropy)).detach()
        self.ent_coef_optimizer.zero_grad()
        torch.autograd.backward(-(self.log_ent_coef * excess).mean())
        self.ent_coef_optimizer.step()
        return weight

    def _mean(self, observation: Tensor) -> Tensor:
        action: Tensor = self.actor(observation, deterministic=True)
        return action

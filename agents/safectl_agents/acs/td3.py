"""ACS on twin delayed deterministic policy gradients, in stable-baselines3's conventions."""

import numpy as np
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise
from torch import Tensor
from torch.nn import functional

from safectl_agents.acs.collect import set_gradients
from safectl_agents.acs.critic import polyak
from safectl_agents.acs.lower import Actors
from safectl_agents.acs.off_policy import Corrected


class ACSTD3(Corrected, TD3):
    """TD3 whose executed actions a lower layer corrects (Chen et al., IROS 2024).

    `learn`, `save`, `load`, callbacks and vector environments are the library's. `predict` returns
    the corrected action, `policy.predict` the proposal. With a layer that never corrects and a
    penalty that never binds, the weights equal those of plain TD3 bit for bit.

    Not promised: that a corrected action is safe. The layer is as good as its learned critic, its
    statement is per step and not per episode, and it is off during the warm-up.

    Args:
        policy: As in the library, `"MlpPolicy"`.
        env: As in the library; costs come from `info["cost"]`.
        constraint: How cost is treated; ACS by default.
        cost: Reads the cost of a step from its `info`, in place of `info["cost"]`.
        options: The library's other arguments. Defaults that differ: those of
            `off_policy.defaults`, and Gaussian noise of 0.1 on the scaled actions while training.
    """

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.action_noise is None:
            shape = self.action_space.shape or ()
            self.action_noise = NormalActionNoise(np.zeros(shape), np.full(shape, _EXPLORATION))

    @property
    def actors(self) -> Actors:
        """The task policy for the lower layer."""
        return Actors(self.actor, self.actor_target)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Update critics, lower layer, actor and targets; the arithmetic of the library's TD3."""
        self.policy.set_training_mode(True)
        self.set_rates(self.actor.optimizer, self.critic.optimizer)
        for _ in range(gradient_steps):
            self._n_updates += 1
            self._gradient_step(batch_size)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _gradient_step(self, batch_size: int) -> None:
        batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
        action = self.learned_action(batch)
        with torch.no_grad():
            noise = batch.actions.clone().normal_(0, self.target_policy_noise)
            noise = noise.clamp(-self.target_noise_clip, self.target_noise_clip)
            following = self.actor_target(batch.next_observations)
            noisy = (following + noise).clamp(-1, 1)
            values = torch.cat(self.critic_target(batch.next_observations, noisy), dim=1)
            value, _ = torch.min(values, dim=1, keepdim=True)
            target = self.reward_target(batch, value)
        losses = [functional.mse_loss(q, target) for q in self.critic(batch.observations, action)]
        loss = torch.stack(losses).sum() if len(losses) != 2 else losses[0] + losses[1]
        self.critic.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.critic.optimizer.step()
        curves = self.learn_costs(batch, following)
        self.logger.record("train/critic_loss", float(loss.detach()))
        for name, number in curves.items():
            self.logger.record(f"train/{name}", number)
        if self._n_updates % self.policy_delay == 0:
            self._actor_step(batch.observations)

    def _actor_step(self, observations: Tensor) -> None:
        action = self.actor(observations)
        loss = -self.critic.q1_forward(observations, action).mean()
        penalty = self.lower.penalty(observations, action)
        if penalty is not None:
            loss = loss + penalty
        set_gradients(loss, self.actor)
        self.actor.optimizer.step()
        self.logger.record("train/actor_loss", float(loss.detach()))
        polyak(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        polyak(self.actor.parameters(), self.actor_target.parameters(), self.tau)
        self.collector.track()


_EXPLORATION = 0.1  # of the largest action, as published

"""ACS on soft actor-critic, in stable-baselines3's conventions."""

from typing import Any

import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_baselines3 import SAC
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor
from torch.nn import functional

from safectl.safeguards.acs import ACS
from safectl_agents.acs.collect import (
    Collector,
    ConstraintSettings,
    CostOf,
    Infos,
    Tally,
    collector_of,
    predict,
    sample_action,
    set_gradients,
)
from safectl_agents.acs.critic import polyak
from safectl_agents.acs.lower import Actors, Lower
from safectl_agents.acs.replay import CostReplayBuffer, CostSamples
from safectl_agents.acs.safeguard import safeguard_of
from safectl_agents.acs.td3 import defaults

Array = NDArray[Any]


class ACSSAC(SAC):
    """SAC whose executed actions a lower layer corrects; all else as in `ACSTD3`.

    The value V_c of a state is that of the policy's mean action. With a layer that never corrects
    and a penalty that never binds, the weights equal those of plain SAC bit for bit.

    Args:
        policy: As in the library, `"MlpPolicy"`.
        env: As in the library; costs come from `info["cost"]`.
        constraint: How cost is treated; ACS by default.
        cost: Reads the cost of a step from its `info`, in place of `info["cost"]`.
        options: The library's other arguments. Defaults that differ: those of `td3.defaults`.
    """

    collector: Collector
    replay_buffer: CostReplayBuffer

    def __init__(
        self,
        policy: str | type[SACPolicy],
        env: Any,  # noqa: ANN401  whatever the library takes
        *,
        constraint: ConstraintSettings | None = None,
        cost: CostOf | None = None,
        **options: Any,  # noqa: ANN401  the library's own thirty arguments
    ) -> None:
        self.constraint = constraint or ConstraintSettings()
        self.cost = cost
        super().__init__(policy, env, **{**defaults(), **options})

    def _setup_model(self) -> None:
        self.replay_buffer_class = CostReplayBuffer
        super()._setup_model()
        self.collector = collector_of(self, self.constraint, self.cost)

    @property
    def lower(self) -> Lower:
        """The layer that corrects actions."""
        return self.collector.lower

    @property
    def tally(self) -> Tally:
        """Counts of the training steps."""
        return self.collector.tally

    def begin_segment(self, seed: int) -> None:
        """Seed the trainer's own generators; new episodes begin."""
        self.collector.begin(self.n_envs, seed)
        self.replay_buffer.restore_marks()

    @property
    def safeguard(self) -> ACS:
        """The lower layer alone, for `Guard(env, model.safeguard)` around any policy.

        It shares its critic with this trainer: what is learned later counts there too.

        Raises:
            ConfigError: If the lower layer is no projection with a cost critic.
        """
        assert isinstance(self.observation_space, Box)
        assert isinstance(self.action_space, Box)
        return safeguard_of(self.lower, self.actors, self.observation_space, self.action_space)

    @property
    def actors(self) -> Actors:
        """The mean action of the task policy, for the lower layer."""
        return Actors(self._mean, self._mean)

    def predict(
        self,
        observation: Any,  # noqa: ANN401  whatever the library takes
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Return the corrected action of the policy; `state` as in `collect.predict`."""
        action = predict(
            self,
            self.collector,
            self.actors,
            observation,
            state,
            deterministic=deterministic,
        )
        return action, state

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update entropy weight, critics, lower layer, actor and targets, as the library's SAC."""
        self.policy.set_training_mode(True)
        entropy = [] if self.ent_coef_optimizer is None else [self.ent_coef_optimizer]
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer, *entropy])
        for index in range(gradient_steps):
            self._gradient_step(batch_size)
            if index % self.target_update_interval == 0:
                polyak(self.critic.parameters(), self.critic_target.parameters(), self.tau)
                self.lower.track()
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
        curves = self.collector.learn(self.replay_buffer, batch, following, self.actors)
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
        constraint = self.constraint
        with torch.no_grad():
            values = torch.cat(self.critic_target(batch.next_observations, following), dim=1)
            value, _ = torch.min(values, dim=1, keepdim=True)
            value = value - entropy
            reward = batch.rewards
            if constraint.reward_penalty > 0.0:
                reward = reward - constraint.reward_penalty * batch.costs
            target = reward + (1 - batch.dones) * self.gamma * value
        action = batch.actions if constraint.store == "executed" else batch.proposals
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

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[Array, Array]:
        return sample_action(
            self, self.collector, self.actors, action_noise, learning_starts=learning_starts
        )

    def _store_transition(
        self,
        replay_buffer: Any,  # noqa: ANN401  as the library declares it
        buffer_action: Array,
        new_obs: Any,  # noqa: ANN401  as the library declares it
        reward: Array,
        dones: Array,
        infos: Infos,
    ) -> None:
        self.collector.annotate(infos, dones)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "collector"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules, variables = super()._get_torch_save_params()
        return [*modules, *(f"lower.{name}" for name in self.lower.parts)], variables

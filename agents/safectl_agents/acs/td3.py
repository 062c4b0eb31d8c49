"""ACS on twin delayed deterministic policy gradients, in stable-baselines3's conventions."""

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_baselines3 import TD3
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise
from stable_baselines3.td3.policies import TD3Policy
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
from safectl_agents.acs.replay import CostReplayBuffer
from safectl_agents.acs.safeguard import safeguard_of

Array = NDArray[Any]


class ACSTD3(TD3):
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
        options: The library's other arguments. Defaults that differ: those of `defaults`.
    """

    collector: Collector
    replay_buffer: CostReplayBuffer

    def __init__(
        self,
        policy: str | type[TD3Policy],
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
        if self.action_noise is None:
            shape = self.action_space.shape or ()
            self.action_noise = NormalActionNoise(np.zeros(shape), np.full(shape, _EXPLORATION))
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
        """The task policy for the lower layer."""
        return Actors(self.actor, self.actor_target)

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

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Update critics, lower layer, actor and targets; the arithmetic of the library's TD3."""
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        for _ in range(gradient_steps):
            self._n_updates += 1
            self._gradient_step(batch_size)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _gradient_step(self, batch_size: int) -> None:
        batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
        constraint = self.constraint
        action = batch.actions if constraint.store == "executed" else batch.proposals
        with torch.no_grad():
            noise = batch.actions.clone().normal_(0, self.target_policy_noise)
            noise = noise.clamp(-self.target_noise_clip, self.target_noise_clip)
            following = self.actor_target(batch.next_observations)
            noisy = (following + noise).clamp(-1, 1)
            values = torch.cat(self.critic_target(batch.next_observations, noisy), dim=1)
            value, _ = torch.min(values, dim=1, keepdim=True)
            reward = batch.rewards
            if constraint.reward_penalty > 0.0:
                reward = reward - constraint.reward_penalty * batch.costs
            target = reward + (1 - batch.dones) * self.gamma * value
        losses = [functional.mse_loss(q, target) for q in self.critic(batch.observations, action)]
        loss = torch.stack(losses).sum() if len(losses) != 2 else losses[0] + losses[1]
        self.critic.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.critic.optimizer.step()
        curves = self.collector.learn(self.replay_buffer, batch, following, self.actors)
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
        self.lower.track()

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


_EXPLORATION = 0.1


def defaults() -> dict[str, Any]:
    """Return the arguments whose default is not the library's."""
    return {
        "learning_rate": 3e-4,
        "learning_starts": 5_000,
        "policy_kwargs": {"net_arch": [256, 256], "optimizer_kwargs": {"fused": True}},
    }

"""What the trainers on TD3 and SAC share: a lower layer between policy, environment and replay."""

from typing import Any

from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import update_learning_rate
from torch import Tensor
from torch.optim import Optimizer

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
)
from safectl_agents.acs.lower import Actors, Lower
from safectl_agents.acs.replay import CostReplayBuffer, CostSamples
from safectl_agents.acs.safeguard import safeguard_of

Array = NDArray[Any]


class Corrected(OffPolicyAlgorithm):
    """Executes corrected actions and stores costs; the update is each trainer's own.

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
        policy: str | type[BasePolicy],
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

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *options: Any,  # noqa: ANN401  the library's own
        **more: Any,  # noqa: ANN401
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:  # the environments are reset
            self.collector.forget(self.n_envs)
            self.replay_buffer.end_episodes()
        return super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, *options, **more
        )

    @property
    def lower(self) -> Lower:
        """The layer that corrects actions."""
        return self.collector.lower

    @property
    def tally(self) -> Tally:
        """Counts of the training steps."""
        return self.collector.tally

    @property
    def actors(self) -> Actors:
        """The task policy for the lower layer."""
        raise NotImplementedError

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

    def set_rates(self, actor: Optimizer, *critics: Optimizer) -> None:
        """Set the step sizes of this round of updates."""
        self._update_learning_rate([actor, *critics])
        if self.constraint.actor_learning_rate is not None:
            update_learning_rate(actor, self.constraint.actor_learning_rate)

    def reward_target(self, batch: CostSamples, value: Tensor) -> Tensor:
        """Return r - b c + gamma V(s'), shape (batch, 1); a time limit bootstraps."""
        reward = batch.rewards
        if self.constraint.reward_penalty > 0.0:
            reward = reward - self.constraint.reward_penalty * batch.costs
        return reward + (1 - batch.dones) * self.gamma * value

    def learned_action(self, batch: CostSamples) -> Tensor:
        """Return the actions that the reward critics learn from, shape (batch, nu)."""
        return batch.actions if self.constraint.store == "executed" else batch.proposals

    def learn_costs(self, batch: CostSamples, following: Tensor) -> dict[str, float]:
        """Update the lower layer; `following` is the policy's action at the next observations."""
        normalizer = self._vec_normalize_env
        return self.collector.learn(
            self.replay_buffer, batch, following, self.actors, normalizer=normalizer
        )

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


def defaults() -> dict[str, Any]:
    """Return the arguments whose default is not the library's."""
    return {
        "learning_rate": 3e-4,
        "learning_starts": 5_000,
        "policy_kwargs": {"net_arch": [256, 256], "optimizer_kwargs": {"fused": True}},
    }

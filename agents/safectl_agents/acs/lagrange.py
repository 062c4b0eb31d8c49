"""PPO and TRPO with a Lagrange multiplier on the cost of an episode: baselines without a safeguard.

The policy's advantage is (A_r - lambda A_c) / (1 + lambda), with A_r standardised and A_c centred,
and lambda climbs by Adam while episodes cost more than the limit (OmniSafe, Ji et al. 2024, JMLR
25(285); Ray, Achiam and Amodei 2019).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from torch.nn import functional

from safectl.errors import RangeError
from safectl.models import ScoreNetwork
from safectl.seed import derive
from safectl_agents.acs.collect import CostOf, Tally
from safectl_agents.acs.safety import descend, normalise_by
from safectl_agents.acs.watched import Rollout, Watched, episode_costs

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class LagrangeSettings:
    """Limit, multiplier and cost critic; the defaults are those of OmniSafe.

    Raises:
        RangeError: If a number lies outside its range.
    """

    limit: float = 25.0
    """Mean cost of an episode up to which the multiplier falls, >= 0."""
    initial: float = 0.001
    """Multiplier at first, >= 0."""
    learning_rate: float = 0.035
    """Of the multiplier, > 0."""
    discount: float = 0.99
    """Of the cost, in (0, 1]."""
    gae_lambda: float = 0.95
    """Of the cost's advantage, in [0, 1]."""
    value_learning_rate: float = 1e-3
    """Of the cost critic, > 0."""
    iterations: int = 40
    """Steps of Adam for the cost critic per rollout, on all of it, >= 0."""
    hidden: tuple[int, ...] = (64, 64)
    """Units per hidden layer of the cost critic, tanh."""

    def __post_init__(self) -> None:
        for name in ("limit", "initial", "iterations"):
            if not getattr(self, name) >= 0.0:
                raise RangeError(name, value=getattr(self, name), expected="a number >= 0")
        for name in ("learning_rate", "value_learning_rate"):
            if not getattr(self, name) > 0.0:
                raise RangeError(name, value=getattr(self, name), expected="a number > 0")
        if not 0.0 < self.discount <= 1.0:
            raise RangeError("discount", value=self.discount, expected="a number in (0, 1]")
        if not 0.0 <= self.gae_lambda <= 1.0:
            raise RangeError("gae_lambda", value=self.gae_lambda, expected="a number in [0, 1]")


class CostSide(nn.Module):
    """The cost critic and the multiplier, with their optimisers.

    Args:
        nx: Observations.
        settings: How they learn.
        seed: Of the initial weights.
    """

    def __init__(self, nx: int, settings: LagrangeSettings, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.normalised: Tensor  # whether a first rollout has set the critic's statistics
        self.register_buffer("normalised", torch.zeros((), dtype=torch.bool))
        generator = torch.Generator().manual_seed(seed)
        self.value = ScoreNetwork(nx, 0, hidden=settings.hidden, generator=generator)
        self.multiplier = nn.Parameter(torch.tensor(settings.initial))
        self.value_optimizer = torch.optim.Adam(
            self.value.parameters(), lr=settings.value_learning_rate
        )
        self.multiplier_optimizer = torch.optim.Adam([self.multiplier], lr=settings.learning_rate)

    def climb(self, episodes: Float[Tensor, " episodes"]) -> None:
        """Move the multiplier by the mean cost of the episodes that ended, if any did."""
        if len(episodes):
            self.multiplier.grad = self.settings.limit - episodes.mean()
            self.multiplier_optimizer.step()
            with torch.no_grad():
                self.multiplier.clamp_(min=0.0)

    @torch.no_grad()
    def advantage(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return the cost's advantage and the target of its value, shape (steps, rows) each."""
        settings = self.settings
        value, after = self._values(rollout.observation), self._values(rollout.last)
        cost = rollout.cost.clone()
        cost[rollout.timeout] += settings.discount * self._values(rollout.final)
        advantage, running = torch.empty_like(cost), torch.zeros_like(after)
        for step in reversed(range(len(cost))):
            going = (~rollout.end[step]).to(cost)
            error = cost[step] + settings.discount * going * after - value[step]
            running = error + settings.discount * settings.gae_lambda * going * running
            advantage[step], after = running, value[step]
        return advantage, advantage + value

    def fit(self, rollout: Rollout, target: Float[Tensor, "steps rows"]) -> float:
        """Fit the cost critic; return the last loss."""
        observation, wanted = rollout.observation.flatten(0, 1), target.reshape(-1, 1)
        loss = 0.0
        for _ in range(self.settings.iterations):
            squares = functional.mse_loss(self.value(observation), wanted)
            loss = descend(self.value_optimizer, self.value, squares)
        return loss

    def _values(self, observation: Tensor) -> Tensor:
        values: Tensor = self.value(observation.reshape(-1, observation.shape[-1]))
        return values.reshape(observation.shape[:-1])


def mixed_advantage(reward: Array, cost: Array, multiplier: float) -> Array:
    """Return (A_r - lambda A_c) / (1 + lambda), A_r standardised and A_c centred, of one shape."""
    standard = (reward - reward.mean()) / (reward.std() + _TINY)
    mixed: Array = (standard - multiplier * (cost - cost.mean())) / (1.0 + multiplier)
    return mixed


class Lagrangian(OnPolicyAlgorithm):
    """What PPO and TRPO share: costs enter the advantages between collection and update."""

    side: CostSide
    tally: Tally
    update: ClassVar[Mapping[str, Any]]
    """Defaults of the update that differ from the library's."""

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: Any,  # noqa: ANN401  whatever the library takes
        *,
        constraint: LagrangeSettings | None = None,
        cost: CostOf | None = None,
        **options: Any,  # noqa: ANN401  the library's own arguments
    ) -> None:
        self.constraint, self.cost = constraint or LagrangeSettings(), cost
        chosen = {"n_steps": _ROLLOUT, "batch_size": _BATCH, **self.update}
        super().__init__(policy, env, **{**chosen, **options})

    def _setup_model(self) -> None:
        super()._setup_model()
        seed = derive(self.seed or 0, "cost critic")
        self.side = CostSide(
            math.prod(self.observation_space.shape or ()), self.constraint, seed
        ).to(self.device)
        self.tally = Tally()
        self._spent = torch.zeros(self.n_envs, device=self.device)

    def begin_segment(self, seed: int) -> None:
        """New episodes begin; there is no generator beside the library's."""

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect, move the multiplier, mix the advantages, fit the cost critic."""
        assert isinstance(self._last_obs, np.ndarray), "learn() has reset the environments"
        begun = torch.as_tensor(self._last_episode_starts, device=self.device)
        spent = torch.where(begun, 0.0, self._spent)
        watched = Watched(env, self._last_obs, _as_proposed, self.tally, cost=self.cost)
        if not super().collect_rollouts(watched, callback, rollout_buffer, n_rollout_steps):
            return False
        rollout, side = watched.rollout(self.device), self.side
        if not side.normalised:
            normalise_by(rollout, side.value)
            side.normalised.fill_(True)
        ended, self._spent = episode_costs(rollout.cost, rollout.end, spent)
        side.climb(ended)
        advantage, target = side.advantage(rollout)
        multiplier = float(side.multiplier.detach())
        rollout_buffer.advantages = mixed_advantage(
            rollout_buffer.advantages, advantage.cpu().numpy(), multiplier
        ).astype(np.float32)
        self.logger.record("train/cost_critic_loss", side.fit(rollout, target))
        self.logger.record("train/multiplier", multiplier)
        return True

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "side", "tally", "_spent"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules, variables = super()._get_torch_save_params()
        names = ("side", "side.value_optimizer", "side.multiplier_optimizer")
        return [*modules, *names], variables


_ROLLOUT, _BATCH = 20_000, 500
_TINY = 1e-8


class PPOLag(Lagrangian, PPO):
    """PPO on the mixed advantage of reward and cost.

    Args:
        policy: As in the library, `"MlpPolicy"`.
        env: As in the library; costs come from `info["cost"]`.
        constraint: Limit and multiplier.
        cost: Reads the cost of a step from its `info`, in place of `info["cost"]`.
        options: The library's other arguments. Defaults that differ: rollouts of 20,000 steps in
            one environment, updates as long as the divergence stays below 0.02.
    """

    update: ClassVar[Mapping[str, Any]] = {"n_epochs": 40, "target_kl": 0.02}


class TRPOLag(Lagrangian, TRPO):
    """TRPO on the mixed advantage, with the conjugate gradients of OmniSafe's table.

    Args:
        policy: As in the library, `"MlpPolicy"`.
        env: As in the library; costs come from `info["cost"]`.
        constraint: Limit and multiplier.
        cost: Reads the cost of a step from its `info`, in place of `info["cost"]`.
        options: The library's other arguments. Defaults that differ: rollouts of 20,000 steps in
            one environment.
    """

    update: ClassVar[Mapping[str, Any]] = {"target_kl": 0.01}


def _as_proposed(_: Array, proposal: Array) -> Array:
    return proposal

"""ACS on proximal policy optimisation, in stable-baselines3's conventions."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from safectl.errors import RangeError
from safectl.safeguards.acs import ACS, ACSOptions
from safectl.safeguards.correction import CorrectionOptions, correct
from safectl.safeguards.cost_critic import ChanceBound, epsilon_schedule
from safectl.safeguards.evidence import Limits
from safectl.safeguards.fallback import Brake
from safectl.seed import derive
from safectl_agents.acs.collect import CostOf, Tally
from safectl_agents.acs.safety import SafetyLearner, SafetySettings
from safectl_agents.acs.watched import Watched, episode_costs
from safectl_envs.signals import spec_of_boxes

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class OnPolicySettings:
    """How cost is treated; the defaults are those of the authors' prototype.

    Raises:
        RangeError: If a number lies outside its range.
    """

    eps_start: float = 4.0
    """Tolerance before the first rollout; above 1.25 nothing is corrected."""
    eps_step: float = 0.3
    """Taken off at the start of every rollout, >= 0."""
    eps_floor: float = 0.3
    """Smallest tolerance, > 0."""
    recovery_rate: float = 0.8
    """alpha, in (0, 1]."""
    correction: CorrectionOptions = field(
        default_factory=lambda: CorrectionOptions(mode="gradient")
    )
    """How actions are moved; no random candidates."""
    safety: SafetySettings = field(default_factory=SafetySettings)
    """How Psi and A_Psi are learned."""
    reward_penalty: float = 0.1
    """kappa in r - kappa c, >= 0."""
    store: Literal["proposal", "executed"] = "proposal"
    """Which action the policy's loss sees. `proposal`: the safeguard is part of the environment.
    `executed`: its log-probability is computed anew, and the distance is penalised."""
    distance_penalty: float = 0.1
    """Taken off the reward per length of the correction, with `executed` only, >= 0."""

    def __post_init__(self) -> None:
        ChanceBound(self.eps_floor, self.recovery_rate)
        for name in ("eps_step", "reward_penalty", "distance_penalty"):
            if not getattr(self, name) >= 0.0:
                raise RangeError(name, value=getattr(self, name), expected="a number >= 0")
        if self.correction.candidates:
            expected = "0: the trainers draw none"
            raise RangeError("candidates", value=self.correction.candidates, expected=expected)

    def bound(self, epoch: int) -> ChanceBound:
        """Return the bound during rollout `epoch`, counted from 0."""
        eps = epsilon_schedule(
            epoch, start=self.eps_start, step=self.eps_step, floor=self.eps_floor
        )
        return ChanceBound(eps, self.recovery_rate)


class ACSPPO(PPO):
    """PPO whose executed actions a safeguard corrects (Chen et al., IROS 2024).

    `learn`, `save`, `load`, callbacks and vector environments are the library's. `predict` returns
    the corrected action, `policy.predict` the proposal. While the bound never binds and without a
    penalty on the reward, the weights equal those of plain PPO bit for bit.

    Not promised: that a corrected action is safe. The safeguard is as good as its learned critic,
    which describes the safeguarded policy of the last rollout; its statement is per step and not
    per episode; and the tolerance of the first rollouts allows everything.

    Args:
        policy: As in the library, `"MlpPolicy"`.
        env: As in the library; costs come from `info["cost"]`.
        constraint: How cost is treated.
        cost: Reads the cost of a step from its `info`, in place of `info["cost"]`.
        options: The library's other arguments. Defaults that differ: those of `defaults`.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: Any,  # noqa: ANN401  whatever the library takes
        *,
        constraint: OnPolicySettings | None = None,
        cost: CostOf | None = None,
        **options: Any,  # noqa: ANN401  the library's own thirty arguments
    ) -> None:
        self.constraint = constraint or OnPolicySettings()
        self.cost = cost
        super().__init__(policy, env, **{**defaults(), **options})

    def _setup_model(self) -> None:
        super()._setup_model()
        box = self.action_space
        assert isinstance(box, Box), "the policy is Gaussian"
        low, high = (torch.as_tensor(end, device=self.device) for end in (box.low, box.high))
        self.limits = Limits(low, high)
        seed = derive(self.seed or 0, "safety critics")
        nx, nu = (math.prod(space.shape or ()) for space in (self.observation_space, box))
        self.learner = SafetyLearner(
            nx,
            nu,
            self.constraint.safety,
            rows=self.n_steps * self.n_envs,
            seed=seed,
            device=self.device,
        )
        self.tally = Tally()
        self._spent = torch.zeros(self.n_envs, device=self.device)

    @property
    def bound(self) -> ChanceBound:
        """The bound of the rollout in progress or the next, counted over every `learn`."""
        return self.constraint.bound(int(self.learner.memory.rollouts))

    @property
    def options(self) -> ACSOptions:
        """Bound and correction in the units of the actions."""
        half = 0.5 * float((self.limits.high - self.limits.low).max())
        correction = self.constraint.correction
        return ACSOptions(self.bound, replace(correction, step=correction.step * half))

    @property
    def safeguard(self) -> ACS:
        """The lower layer alone, for `Guard(env, model.safeguard)` around any policy.

        It shares its critic with this trainer; the tolerance is that of now.
        """
        spec = spec_of_boxes(self.observation_space, self.action_space)
        return ACS(self.learner.critic, fallback=Brake(spec), options=self.options)

    def begin_segment(self, seed: int) -> None:
        """New episodes begin; there is no generator beside the library's."""

    def predict(
        self,
        observation: Any,  # noqa: ANN401  whatever the library takes
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Return the corrected action of the policy, in its units."""
        action, _ = self.policy.predict(observation, None, episode_start, deterministic)
        seen = np.asarray(observation).reshape(-1, *self.observation_space.shape or ())
        corrected, _, _ = self._correct(seen, action.reshape(len(seen), -1), self.options)
        return corrected.reshape(action.shape), state

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect with the safeguarded policy, then fit the safety critics."""
        constraint, options = self.constraint, self.options

        def execute(observation: Array, proposal: Array) -> Array:
            action, iterations, residual = self._correct(observation, proposal, options)
            self.tally.iterations += iterations
            self.tally.residual += residual
            return action

        assert isinstance(self._last_obs, np.ndarray), "learn() has reset the environments"
        begun = torch.as_tensor(self._last_episode_starts, device=self.device)
        self._spent = torch.where(begun, 0.0, self._spent)
        watched = Watched(
            env,
            self._last_obs,
            execute,
            self.tally,
            reward_penalty=constraint.reward_penalty,
            distance_penalty=constraint.distance_penalty * (constraint.store == "executed"),
            cost=self.cost,
        )
        if not super().collect_rollouts(watched, callback, rollout_buffer, n_rollout_steps):
            return False
        rollout = watched.rollout(self.device)
        for name, number in self.learner.fit(rollout, self._spent).items():
            self.logger.record(f"train/{name}", number)
        self.logger.record("train/eps", options.bound.tolerance)
        _, self._spent = episode_costs(rollout.cost, rollout.end, self._spent)
        if constraint.store == "executed":
            self._restate(rollout_buffer, rollout.action)
        return True

    @torch.no_grad()
    def _restate(self, buffer: RolloutBuffer, action: Tensor) -> None:
        """Put the executed actions and their log-probabilities into the buffer."""
        observation = torch.as_tensor(buffer.observations, device=self.device)
        _, log_prob, _ = self.policy.evaluate_actions(
            observation.flatten(0, 1), action.flatten(0, 1)
        )
        buffer.actions[:] = action.cpu().numpy()
        buffer.log_probs[:] = log_prob.reshape(action.shape[:2]).cpu().numpy()

    def _correct(
        self, observation: Array, proposal: Array, options: ACSOptions
    ) -> tuple[Array, float, float]:
        """Return what is executed, and the sums of iterations and residuals."""
        seen, action = (
            torch.as_tensor(array, dtype=torch.float32, device=self.device)
            for array in (observation, proposal)
        )
        critic = self.learner.critic
        with torch.no_grad():
            threshold = options.bound.threshold(critic.value(seen))
            found = correct(critic, seen, action, threshold, self.limits, options.correction)
        known = found.residual.isfinite().unsqueeze(-1)
        action = torch.where(known, found.action, torch.zeros_like(action).clamp(*self.limits))
        executed = action.cpu().numpy().astype(proposal.dtype)
        return executed, float(found.iterations.sum()), float(found.residual.sum())

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "learner", "limits", "tally", "_spent"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules, variables = super()._get_torch_save_params()
        names = ("safety", "advantage", "memory", "safety_optimizer", "advantage_optimizer")
        return [*modules, *(f"learner.{name}" for name in names)], variables


def defaults() -> dict[str, Any]:
    """Return the arguments whose default is not the library's.

    The library's one optimiser serves policy and value, with minibatches, where the prototype takes
    80 steps on the whole rollout with two; the rule that stops at 1.5 times the target is the same.
    """
    return {
        "n_steps": 4_000,
        "batch_size": 500,
        "gae_lambda": 0.97,
        "target_kl": 0.01,
        "policy_kwargs": {"log_std_init": -0.5},
    }

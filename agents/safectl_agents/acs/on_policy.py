"""The on-policy methods of the comparison, with rollouts of 2,500 steps.

The prototype's 16,000 would leave six rollouts to the small tasks; half an evaluation interval
leaves forty. Tasks without a budget allow no violation, so labels look at the next steps.
"""

from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from safectl_agents.acs.lagrange import LagrangeSettings, PPOLag, TRPOLag
from safectl_agents.acs.ppo import ACSPPO, OnPolicySettings
from safectl_agents.acs.safety import SafetySettings

_ROLLOUT: dict[str, Any] = {"n_steps": 2_500, "batch_size": 250, "device": "cpu"}
_HORIZON = 10  # steps of a label
_PENALTY = 1.0  # per unit of cost; with less, proposals outrun what a correction can bring back
_LIMIT = 1.0  # cost of an episode that the Lagrangian methods aim at
_NEVER = 10.0  # a tolerance that no cost reaches


def acs_ppo(env: VecEnv, seed: int, eps: float) -> BaseAlgorithm:
    """ACS on PPO; the schedule ends at eps."""
    safety = SafetySettings(label="horizon", horizon=_HORIZON)
    settings = OnPolicySettings(eps_floor=eps, reward_penalty=_PENALTY, safety=safety)
    return ACSPPO("MlpPolicy", env, constraint=settings, seed=seed, **_ROLLOUT)


def ppo(env: VecEnv, seed: int) -> BaseAlgorithm:
    """Plain PPO, bit for bit, with the counts of the comparison."""
    safety = SafetySettings(safety_iterations=0, advantage_iterations=0)
    settings = OnPolicySettings(_NEVER, eps_floor=_NEVER, reward_penalty=0.0, safety=safety)
    return ACSPPO("MlpPolicy", env, constraint=settings, seed=seed, **_ROLLOUT)


def ppo_lag(env: VecEnv, seed: int) -> BaseAlgorithm:
    """PPO with a multiplier."""
    settings = LagrangeSettings(limit=_LIMIT)
    return PPOLag("MlpPolicy", env, constraint=settings, seed=seed, **_ROLLOUT)


def trpo_lag(env: VecEnv, seed: int) -> BaseAlgorithm:
    """TRPO with a multiplier."""
    settings = LagrangeSettings(limit=_LIMIT)
    return TRPOLag("MlpPolicy", env, constraint=settings, seed=seed, **_ROLLOUT)

"""The methods of the comparison by name; a new one is a line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from safectl.errors import UnknownNameError
from safectl.safeguards.correction import CorrectionOptions, Mode
from safectl.safeguards.cost_critic import ChanceBound
from safectl_agents.acs.collect import ConstraintSettings
from safectl_agents.acs.critic import CriticSettings, Target
from safectl_agents.acs.linear_layer import LinearLayerSettings
from safectl_agents.acs.lower import LowerSettings
from safectl_agents.acs.on_policy import acs_ppo, ppo, ppo_lag, trpo_lag
from safectl_agents.acs.projection import ProjectionSettings
from safectl_agents.acs.recovery import RecoverySettings
from safectl_agents.acs.sac import ACSSAC
from safectl_agents.acs.tasks import Learning
from safectl_agents.acs.td3 import ACSTD3
from safectl_agents.acs.unguarded import UnguardedSettings


@dataclass(frozen=True, slots=True)
class MethodContext:
    """What a method needs to know of the task and the run.

    Attributes:
        seed: Of the weights and of everything random.
        guard_from: Step from which actions are corrected.
        reward_penalty: b of reward shaping on this task.
        eps: Tolerance, the same for all methods.
        hidden: Units per hidden layer of every network.
        learning: Rates of the off-policy methods.
        lower_learns: Whether their lower layer learns.
        options: Further arguments of the trainer.
    """

    seed: int
    guard_from: int
    reward_penalty: float
    eps: float
    hidden: tuple[int, ...] = (256, 256)
    learning: Learning = field(default_factory=Learning)
    lower_learns: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        summary: What it is, in a few words.
        make: Builds the untrained model.
    """

    summary: str
    make: Callable[[VecEnv, MethodContext], BaseAlgorithm]


def _off_policy(
    kind: type[ACSTD3] | type[ACSSAC],
    lower: Callable[[MethodContext], LowerSettings],
    **constraint: Any,  # noqa: ANN401  fields of ConstraintSettings
) -> Callable[[VecEnv, MethodContext], BaseAlgorithm]:
    def make(env: VecEnv, context: MethodContext) -> BaseAlgorithm:
        rates = context.learning
        settings = ConstraintSettings(
            lower(context),
            guard_from=context.guard_from,
            learns=context.lower_learns,
            actor_learning_rate=rates.actor_rate,
            **constraint,
        )
        network = {"net_arch": list(context.hidden), "optimizer_kwargs": {"fused": True}}
        options: dict[str, Any] = {
            "learning_rate": rates.critic_rate,
            "tau": rates.tau,
            "policy_kwargs": network,
        }
        options |= context.options
        if kind is ACSSAC:
            options.pop("policy_delay", None)
        return kind("MlpPolicy", env, constraint=settings, seed=context.seed, **options)

    return make


def _critic(context: MethodContext, target: Target = "sum") -> CriticSettings:
    rates = context.learning
    return CriticSettings(
        target,
        discount=rates.cost_discount,
        learning_rate=rates.critic_rate,
        hidden=context.hidden,
        tau=rates.cost_tau,
    )


def _acs(context: MethodContext, mode: Mode | None = None) -> LowerSettings:
    return ProjectionSettings(
        ChanceBound(context.eps),
        correction=CorrectionOptions(mode or context.learning.mode),
        corrected_target=context.learning.corrected_target,
        critic=_critic(context),
    )


def _acs_newton(context: MethodContext) -> LowerSettings:
    return _acs(context, "newton")


def _usl(context: MethodContext) -> LowerSettings:
    bound = ChanceBound(context.eps, recovery_rate=1.0)
    return ProjectionSettings(bound, critic=_critic(context))


def _lagrange(context: MethodContext) -> LowerSettings:
    return ProjectionSettings(
        ChanceBound(context.eps, recovery_rate=1.0),
        project=False,
        penalty="lagrange",
        multiplier_rate=context.learning.multiplier_rate,
        critic=_critic(context),
    )


def _shaping(env: VecEnv, context: MethodContext) -> BaseAlgorithm:
    make = _off_policy(ACSTD3, _none, reward_penalty=context.reward_penalty)
    return make(env, context)


def _none(_: MethodContext) -> LowerSettings:
    return UnguardedSettings()


def _linear(context: MethodContext) -> LowerSettings:
    return LinearLayerSettings(
        context.eps, learning_rate=context.learning.critic_rate, hidden=context.hidden
    )


def _recovery(context: MethodContext) -> LowerSettings:
    rate = context.learning.actor_rate
    return RecoverySettings(context.eps, rate, critic=_critic(context, "first_hit"))


METHODS: Mapping[str, Method] = {
    "acs": Method("ACS on TD3", _off_policy(ACSTD3, _acs)),
    "acs-newton": Method("ACS on TD3, Newton correction", _off_policy(ACSTD3, _acs_newton)),
    "acs-sac": Method("ACS on SAC", _off_policy(ACSSAC, _acs)),
    "usl": Method("USL: fixed threshold, discounted sum", _off_policy(ACSTD3, _usl)),
    "recovery": Method("Recovery RL", _off_policy(ACSTD3, _recovery, store="proposal")),
    "safety-layer": Method("linear Safety Layer", _off_policy(ACSTD3, _linear)),
    "td3-lag": Method("TD3-Lagrangian", _off_policy(ACSTD3, _lagrange)),
    "sac-lag": Method("SAC-Lagrangian", _off_policy(ACSSAC, _lagrange)),
    "shaping": Method("TD3 on r - b c", _shaping),
    "td3": Method("TD3, unconstrained", _off_policy(ACSTD3, _none)),
    "sac": Method("SAC, unconstrained", _off_policy(ACSSAC, _none)),
    "acs-ppo": Method("ACS on PPO", lambda env, run: acs_ppo(env, run.seed, run.eps)),
    "ppo-lag": Method("PPO-Lagrangian", lambda env, run: ppo_lag(env, run.seed)),
    "trpo-lag": Method("TRPO-Lagrangian", lambda env, run: trpo_lag(env, run.seed)),
    "ppo": Method("PPO, unconstrained", lambda env, run: ppo(env, run.seed)),
}
"""Methods by name."""


def find_method(name: str) -> Method:
    """Return a method.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, known=tuple(METHODS), shown=len(METHODS))
    return METHODS[name]

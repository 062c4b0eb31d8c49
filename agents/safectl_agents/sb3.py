"""The actor of a stable-baselines3 model as a `Policy`, and as plain layers for export.

The deterministic action of an observation o is, with the running mean, variance v and the clip c of
the normaliser (left out where there is none),

    z = clamp((o - mean) / sqrt(v + epsilon), -c, c)
    y = layers(z)
    action = low + (y + 1) / 2 * (high - low)    if rescaled: SAC and TD3, y ends in tanh
    action = clamp(y, low, high)                 otherwise: PPO, y is the mean of the normal
"""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from gymnasium.spaces import Box
from jaxtyping import Float
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from safectl.errors import UnsupportedLayer


@dataclass(frozen=True, slots=True, eq=False)
class Normaliser:
    """Statistics of the observations, frozen after training, in float32.

    Attributes:
        mean: Running mean, shape (nx,), units of the observation.
        variance: Running variance, shape (nx,), squared units.
        epsilon: Added to the variance, squared units.
        clip: Bound on the normalised values, without unit.
    """

    mean: Float[Tensor, " nx"]
    variance: Float[Tensor, " nx"]
    epsilon: float
    clip: float

    def apply(self, observation: Float[Tensor, "batch nx"]) -> Float[Tensor, "batch nx"]:
        """Return (o - mean) / sqrt(variance + epsilon), clamped to +-clip."""
        scaled = (observation - self.mean) / torch.sqrt(self.variance + self.epsilon)
        return scaled.clamp(-self.clip, self.clip)


@dataclass(frozen=True, slots=True, eq=False)
class SB3Policy:
    """The deterministic actor of a trained model, on the CPU; shares no memory with the model.

    Attributes:
        layers: From the normalised observation to the output, `Linear`, `Tanh` and `ReLU` only.
        low: Lower limits of the action, shape (nu,), units of the action.
        high: Upper limits of the action, shape (nu,).
        rescaled: Whether outputs in [-1, 1] are mapped to the limits (SAC, TD3) or outputs in units
            of the action are clamped to them (PPO).
        normaliser: Statistics of the observations, or None.
    """

    layers: nn.Sequential
    low: Float[Tensor, " nu"]
    high: Float[Tensor, " nu"]
    rescaled: bool
    normaliser: Normaliser | None

    def act(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        """Propose the deterministic action.

        Args:
            observation: Raw observations, shape (batch, nx), units of the environment.

        Returns:
            Proposals within the limits, shape (batch, nu), units of the action.
        """
        with torch.no_grad():
            inputs = observation if self.normaliser is None else self.normaliser.apply(observation)
            output: Tensor = self.layers(inputs)
            if self.rescaled:
                output = self.low + 0.5 * (output + 1.0) * (self.high - self.low)
            return torch.clamp(output, self.low, self.high)


def policy_of(model: BaseAlgorithm) -> SB3Policy:
    """Copy the actor of a PPO, SAC or TD3 model and the statistics of its normaliser.

    Raises:
        UnsupportedLayer: If the model is of another kind or sees images.
    """
    return extract(model.policy, normaliser_of(model.get_vec_normalize_env()))


def normaliser_of(env: VecNormalize | None) -> Normaliser | None:
    """Return the statistics of an environment's observations, None where they are not scaled."""
    if env is None or not env.norm_obs:
        return None
    statistics = observation_statistics(env)
    return Normaliser(
        torch.tensor(statistics.mean, dtype=torch.float32),
        torch.tensor(statistics.var, dtype=torch.float32),
        env.epsilon,
        env.clip_obs,
    )


def observation_statistics(env: VecNormalize) -> RunningMeanStd:
    """Return the live statistics of an environment that scales box observations."""
    return cast(RunningMeanStd, env.obs_rms)  # the library infers the type of dictionary spaces


def extract(policy: BasePolicy, normaliser: Normaliser | None) -> SB3Policy:
    """Copy the layers of a stable-baselines3 policy to the CPU.

    Raises:
        UnsupportedLayer: If it is no multilayer perceptron of PPO, SAC or TD3 with box actions.
    """
    if not isinstance(policy.action_space, Box):
        raise _unsupported(f"actions in {policy.action_space}")
    layers = nn.Sequential(*_layers(policy))
    for layer in layers:
        if not isinstance(layer, nn.Linear | nn.Tanh | nn.ReLU):
            raise _unsupported(type(layer).__name__)
    return SB3Policy(
        copy.deepcopy(layers).cpu().eval().requires_grad_(False),
        torch.tensor(policy.action_space.low, dtype=torch.float32),
        torch.tensor(policy.action_space.high, dtype=torch.float32),
        policy.squash_output,
        normaliser,
    )


def _layers(policy: BasePolicy) -> list[nn.Module]:
    if isinstance(policy, ActorCriticPolicy):
        return [*policy.mlp_extractor.policy_net, policy.action_net]
    if isinstance(policy, SACPolicy):
        head = policy.actor.mu
        assert isinstance(head, nn.Module)
        return [*policy.actor.latent_pi, head, nn.Tanh()]
    if isinstance(policy, TD3Policy):
        return list(policy.actor.mu)
    raise _unsupported(type(policy).__name__)


def _unsupported(found: str) -> UnsupportedLayer:
    return UnsupportedLayer(
        found,
        supported=("multilayer perceptrons of PPO, SAC and TD3 with Linear, Tanh, ReLU",),
        advice="Train with `MlpPolicy` and box actions.",
    )

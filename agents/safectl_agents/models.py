"""Build environments and stable-baselines3 models from settings, nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from stable_baselines3.ppo.policies import MlpPolicy as PPOPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

import safectl_envs  # noqa: F401  registers its environments
from safectl.errors import ConfigError, UnknownNameError
from safectl.types import Safeguard
from safectl_agents.episodes import EpisodeRecorder
from safectl_agents.guarded import GuardedVecEnv
from safectl_agents.settings import Activation, PPOSettings, SACSettings, TD3Settings, TrainConfig
from safectl_agents.vector import GymnasiumVecEnv

Env = gym.Env[NDArray[Any], NDArray[Any]]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
_POLICIES: dict[str, type[BasePolicy]] = {"ppo": PPOPolicy, "sac": SACPolicy, "td3": TD3Policy}


class ExecutedReplayBuffer(ReplayBuffer):
    """Keeps the action that was executed in place of the one that was proposed."""

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one transition per environment, actions scaled to [-1, 1], shape (batch, nu)."""
        assert isinstance(self.action_space, Box)
        low, high = self.action_space.low, self.action_space.high
        executed = np.stack([info["action_executed"] for info in infos])
        scaled = 2.0 * (executed - low) / (high - low) - 1.0
        super().add(obs, next_obs, scaled, reward, done, infos)


def make_env(name: str, *, render: bool = False) -> Env:
    """Make one registered environment.

    Raises:
        UnknownNameError: If no environment has this name.
        ConfigError: If it has no flat box observations or no bounded flat box actions.
    """
    try:
        options: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
        env: Env = gym.make(name, disable_env_checker=True, **options)
    except (gym.error.Error, ModuleNotFoundError) as error:
        known = sorted(gym.registry, key=lambda key: (not key.startswith("saf"), key))
        raise UnknownNameError("environment", name, known=known) from error
    for kind, space in (("observations", env.observation_space), ("actions", env.action_space)):
        if not (isinstance(space, Box) and len(space.shape) == 1):
            raise ConfigError(name, f"{kind} are {space}, expected a one-dimensional Box")
    if not (isinstance(env.action_space, Box) and env.action_space.is_bounded()):
        raise ConfigError(name, f"actions are {env.action_space}, expected finite bounds")
    return env


@dataclass(frozen=True, slots=True)
class GuardFactory:
    """How to put a safeguard around the environments of a training run.

    Attributes:
        make: Makes the safeguard from one environment, or a vector of them, and the number of rows.
        state: What the safeguard sees of an environment, e.g. `safectl_envs.true_state`; None for
            the observations.
    """

    make: Callable[[Env | VectorEnv[Any, Any, Any], int], Safeguard]
    state: Callable[[object], Tensor] | None = None


def make_vec_env(
    config: TrainConfig,
    guard: GuardFactory | None,
    episodes: Path,
    *,
    step: int,
    violations: int,
    seed: int,
) -> tuple[VecEnv, EpisodeRecorder]:
    """Build environments, guard, recorder and normaliser, inside out, and seed them.

    Args:
        config: What to build.
        guard: How to make the safeguard; None for none.
        episodes: File of the recorder.
        step: Steps done so far.
        violations: Violations so far.
        seed: Environment i resets with the i-th seed after it.

    Returns:
        The outermost environment and the recorder inside it.
    """
    env, parts = _copies(config.env, config.n_envs)
    env.seed(seed)
    for index, part in enumerate(parts):
        part.action_space.seed(seed + index)
    if guard is not None:
        env = GuardedVecEnv(env, guard.make(parts[0], config.n_envs), _state_of(guard, parts))
    recorder = EpisodeRecorder(env, episodes, step=step, violations=violations)
    if not (config.normalise_observation or config.normalise_reward):
        return recorder, recorder
    normalised = VecNormalize(
        recorder,
        norm_obs=config.normalise_observation,
        norm_reward=config.normalise_reward,
        gamma=config.chosen.discount,
    )
    return normalised, recorder


def _copies(name: str, count: int) -> tuple[VecEnv, Sequence[Env | VectorEnv[Any, Any, Any]]]:
    """Make copies of an environment: as one vector where it offers a fitting one, else singly."""
    single = make_env(name)  # checks name and spaces
    single.close()
    if gym.spec(name).vector_entry_point is not None:
        vector = gym.make_vec(name, num_envs=count, vectorization_mode="vector_entry_point")
        if vector.metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP:
            return GymnasiumVecEnv(vector), [vector]
        vector.close()
    copies = DummyVecEnv([lambda: make_env(name) for _ in range(count)])
    return copies, copies.envs


def _state_of(guard: GuardFactory, parts: Sequence[object]) -> Callable[[], Tensor] | None:
    read = guard.state
    return None if read is None else lambda: torch.cat([read(part) for part in parts])


def make_model(config: TrainConfig, env: VecEnv, *, guarded: bool) -> BaseAlgorithm:
    """Build an untrained model; its weights come from torch's global generator."""
    settings = config.chosen
    network = _network(settings)
    if isinstance(settings, PPOSettings):
        return PPO(
            "MlpPolicy",
            env,
            learning_rate=settings.learning_rate,
            n_steps=settings.rollout,
            batch_size=settings.batch_size,
            n_epochs=settings.epochs,
            gamma=settings.discount,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip_range,
            ent_coef=settings.entropy_weight,
            target_kl=settings.target_kl,
            policy_kwargs=network | {"log_std_init": settings.log_std_init},
            device=config.device,
        )
    kind = SAC if isinstance(settings, SACSettings) else TD3
    options: dict[str, Any] = {}
    if isinstance(settings, TD3Settings):
        assert env.action_space.shape is not None
        zero = np.zeros(env.action_space.shape, dtype=np.float32)
        options["action_noise"] = NormalActionNoise(zero, zero + settings.exploration)
        options["policy_delay"] = settings.policy_delay
    if guarded and config.store == "executed":
        options["replay_buffer_class"] = ExecutedReplayBuffer
    return kind(
        "MlpPolicy",
        env,
        learning_rate=settings.learning_rate,
        buffer_size=settings.buffer_size,
        learning_starts=settings.learning_starts,
        batch_size=settings.batch_size,
        tau=settings.tau,
        gamma=settings.discount,
        train_freq=settings.train_every,
        gradient_steps=settings.updates,
        policy_kwargs=network,
        device=config.device,
        **options,
    )


def make_policy(config: TrainConfig, observation: Box, action: Box) -> BasePolicy:
    """Build the untrained policy network alone, without environments."""
    settings = config.chosen
    network = _network(settings)
    return _POLICIES[config.algorithm](observation, action, lambda _: 0.0, **network)


def _network(settings: PPOSettings | SACSettings | TD3Settings) -> dict[str, Any]:
    return {
        "net_arch": list(settings.hidden),
        "activation_fn": _ACTIVATIONS[settings.activation],
    }

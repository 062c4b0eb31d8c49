"""Locomotion data of mixed quality: a SAC run of our own, followed at several of its checkpoints.

Not D4RL's sets, whose policies are not public: the share of each quality is ours and is stored with
the data (`safectl.returns`, the mean return of an episode per checkpoint).
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from minari.data_collector import EpisodeBuffer

from safectl.errors import RangeError
from safectl.seed import derive, numpy_generator
from safectl.types import Policy
from safectl_agents.diffusion.minari_folder import write_minari
from safectl_agents.settings import SACSettings, TrainConfig
from safectl_agents.train import train
from safectl_agents.training_state import checkpoints, load_policy
from safectl_envs.signals import spec_of

Env = gymnasium.Env[Any, Any]
_RESET_BITS = 31


@dataclass(frozen=True, slots=True)
class LocomotionConfig:
    """What to train and how much of each checkpoint to collect.

    Raises:
        RangeError: If a number is out of its range.
    """

    env: str = "Hopper-v5"
    """Gymnasium id, such as Hopper-v5 or Walker2d-v5."""
    training_steps: int = 500_000
    """Steps of the training run."""
    qualities: int = 5
    """Checkpoints to collect from, spread evenly over the training run."""
    rows: int = 1_000_000
    """Steps in all, as many from each checkpoint; the last episodes are cut."""
    exploration: float = 0.1
    """Standard deviation added to actions, in half ranges of the action."""
    policy_seed: int = 0
    """Of training and collection."""
    sac: SACSettings = field(default_factory=SACSettings)
    """Hyperparameters of SAC."""

    def __post_init__(self) -> None:
        if not 1 <= self.qualities <= self.training_steps:
            expected = "at least 1, and not more than training steps"
            raise RangeError("qualities", value=self.qualities, expected=expected)
        if self.rows < 2 * self.qualities:
            raise RangeError("rows", value=self.rows, expected="at least 2 per checkpoint")
        if not 0.0 <= self.exploration < float("inf"):
            raise RangeError("exploration", value=self.exploration, expected="a number >= 0")

    @property
    def training(self) -> TrainConfig:
        """The run that makes the policies."""
        return TrainConfig(
            env=self.env,
            algorithm="sac",
            steps=self.training_steps,
            seed=self.policy_seed,
            checkpoint_every=-(-self.training_steps // self.qualities),
            keep=self.qualities,
            sac=self.sac,
        )


def write_locomotion_data(
    config: LocomotionConfig, path: Path, *, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Train, or go on training in `PATH.training`, then collect and store a Minari dataset.

    Args:
        config: What to collect.
        path: Folder of the dataset, which must not exist.
        progress: Told the number of collected steps.

    Returns:
        The number of steps stored.

    Raises:
        ConfigError: If the training folder holds a run with other settings.
        StorageError: If the dataset exists, or the disk refuses.
        UnknownNameError: If no environment has the name.
    """
    folder = path.with_name(f"{path.name}.training")
    begun = (folder / "config.json").exists()
    train(config.training, folder=folder, resume=begun)
    found = checkpoints(folder / "checkpoints")
    share = config.rows // len(found)
    env: Env = gymnasium.make(config.env)
    try:
        episodes: list[EpisodeBuffer] = []
        returns = {}
        for index, checkpoint in enumerate(found):
            policy = load_policy(checkpoint, config.training)
            own = list(_collect(env, policy, config, index, share))
            returns[checkpoint.name] = float(np.mean([np.sum(e.rewards) for e in own]))
            episodes += own
            progress((index + 1) * share)
        facts = {
            "dataset_id": f"safectl/locomotion/{config.env}",
            "algorithm_name": "SAC of stable-baselines3 at several checkpoints",
            "description": "mixed quality, by safectl data locomotion",
            "safectl": asdict(config) | {"returns": returns},
        }
        return write_minari(path, episodes, spec_of(env), facts)
    finally:
        env.close()


def _collect(
    env: Env, policy: Policy, config: LocomotionConfig, index: int, steps: int
) -> Iterator[EpisodeBuffer]:
    """Yield episodes of `steps` steps in all; the last one is truncated."""
    purpose = f"locomotion checkpoint {index}"
    generator = numpy_generator(config.policy_seed, purpose)
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box), "spec_of refuses others"
    half = 0.5 * (space.high - space.low)
    seed: int | None = derive(config.policy_seed, purpose) >> (63 - _RESET_BITS)
    while steps > 0:
        observation, _ = env.reset(seed=seed)
        seed = None  # the stream goes on
        observations, actions, rewards, ended = [observation], [], [], False
        terminated = truncated = False
        while not ended:
            row = torch.as_tensor(observation, dtype=torch.float32).unsqueeze(0)
            noise = config.exploration * half * generator.standard_normal(space.shape)
            action = np.clip(policy.act(row)[0].numpy() + noise, space.low, space.high)
            action = action.astype(np.float32)
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            actions.append(action)
            rewards.append(float(reward))
            steps -= 1
            ended = terminated or truncated or steps == 0
        count = len(actions)
        yield EpisodeBuffer(
            observations=np.array(observations, np.float32),
            actions=np.array(actions),
            rewards=rewards,
            terminations=[False] * (count - 1) + [terminated],
            truncations=[False] * (count - 1) + [not terminated],
        )

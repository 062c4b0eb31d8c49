"""Episodes to and from Minari datasets."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import minari
import numpy as np
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer
from minari.dataset.episode_data import EpisodeData

from safectl.errors import FileFormatError, StorageError
from safectl_agents.fb.episodes import Episode, save_episode

_ADVICE = "list what is there with: minari list local"


def to_minari(episodes: Iterable[Episode], dataset: str) -> int:
    """Store episodes as a Minari dataset; the reward is that of the first task.

    Simulator states go into the infos as `physics`, so that they come back.

    Returns:
        The number of episodes.

    Raises:
        StorageError: If there is such a dataset already, or it cannot be written.
    """
    buffers, nx, nu = [], 0, 0
    for number, episode in enumerate(episodes):
        nx, nu = episode.observation.shape[1], episode.action.shape[1]
        terminated = episode.discount[1:] == 0.0
        truncated = np.zeros_like(terminated)
        truncated[-1] = not terminated[-1]
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=episode.observation,
                actions=episode.action[1:],
                rewards=list(map(float, episode.reward[1:, 0])),
                terminations=list(map(bool, terminated)),
                truncations=list(map(bool, truncated)),
                infos=None if episode.physics is None else {"physics": episode.physics},
            )
        )
    try:
        with warnings.catch_warnings():  # of author, environment and scores, which data have not
            warnings.filterwarnings("ignore", module=r"minari\.")
            minari.create_dataset_from_buffers(
                dataset,
                buffers,
                observation_space=Box(-np.inf, np.inf, (nx,), np.float32),
                action_space=Box(-1.0, 1.0, (nu,), np.float32),
                description="reward-free exploration",
            )
    except (ValueError, OSError) as error:
        raise StorageError(dataset, str(error)) from error
    return len(buffers)


def from_minari(dataset: str) -> Iterator[Episode]:
    """Yield the episodes of a Minari dataset of flat observations and actions.

    Raises:
        FileFormatError: If it is missing or damaged, or its spaces are not flat boxes.
    """
    for one in _stored(dataset):
        if not isinstance(one.observations, np.ndarray) or one.observations.ndim != 2:
            advice = "flatten it with gymnasium.wrappers.FlattenObservation first"
            raise FileFormatError(dataset, "has observations that are no vectors", advice)
        steps = len(one.actions)
        padded = np.zeros((steps + 1, *one.actions.shape[1:]), np.float32)
        padded[1:] = one.actions
        reward = np.concatenate([[0.0], one.rewards]).astype(np.float32)[:, None]
        discount = np.concatenate([[1.0], 1.0 - one.terminations]).astype(np.float32)
        physics = one.infos.get("physics") if isinstance(one.infos, dict) else None
        yield Episode(one.observations.astype(np.float32), padded, reward, discount, physics)


def _stored(dataset: str) -> Iterator[EpisodeData]:
    try:
        yield from minari.load_dataset(dataset).iterate_episodes()
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise FileFormatError(dataset, f"is no dataset ({error})", _ADVICE) from error


def import_minari(dataset: str, folder: Path) -> int:
    """Write a Minari dataset as a folder of episodes; return their number.

    Raises:
        FileFormatError: As `from_minari`.
        StorageError: If a file cannot be written.
    """
    count = 0
    for count, episode in enumerate(from_minari(dataset), 1):
        save_episode(episode, folder, count - 1)
    return count

"""Episodes to and from Minari datasets."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import minari
import numpy as np
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer
from minari.dataset.episode_data import EpisodeData

from safectl.errors import FileFormatError, RangeError, ShapeError, StorageError
from safectl.files import new_folder
from safectl_agents.fb.episodes import Episode, episode_of, save_episode

_ADVICE = "list what is there with: minari list local"


def to_minari(episodes: Iterable[Episode], dataset: str) -> int:
    """Store episodes as a Minari dataset; the reward is that of the first task.

    Simulator states go into the infos as `physics`, so that they come back.

    Returns:
        The number of episodes.

    Raises:
        RangeError: If there are no episodes.
        ShapeError: If one has other sizes than the first.
        StorageError: If there is such a dataset already, or it cannot be written.
    """
    buffers: list[EpisodeBuffer] = []
    sizes: tuple[int, int] | None = None
    for number, episode in enumerate(episodes):
        found = (episode.observation.shape[1], episode.action.shape[1])
        sizes = sizes or found
        if found != sizes:
            raise ShapeError(f"row of episode {number}", expected=sizes, got=found)
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
    if sizes is None:
        raise RangeError("episodes", value=0, expected="at least one to store")
    nx, nu = sizes
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
    """Yield the episodes of a Minari dataset of flat observations and actions in [-1, 1].

    Raises:
        FileFormatError: If it is missing or damaged, or its spaces are others.
        NonFiniteError: If a number is NaN or infinite.
    """
    for one in _stored(dataset):
        arrays = {
            "observation": np.asarray(one.observations),
            "action": np.concatenate([np.zeros_like(one.actions[:1]), one.actions]),
            "reward": np.concatenate([[0.0], one.rewards]),
            "discount": np.concatenate([[1.0], 1.0 - one.terminations]),
        }
        if isinstance(one.infos, dict) and "physics" in one.infos:
            arrays["physics"] = np.asarray(one.infos["physics"])
        yield episode_of(arrays, f"episode {one.id} of {dataset}")


def _stored(dataset: str) -> Iterator[EpisodeData]:
    try:
        found = minari.load_dataset(dataset)
        _check_spaces(found, dataset)
        yield from found.iterate_episodes()
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise FileFormatError(dataset, f"is no dataset ({error})", _ADVICE) from error


def _check_spaces(found: minari.MinariDataset, dataset: str) -> None:
    seen, action = found.observation_space, found.action_space
    if not isinstance(seen, Box) or len(seen.shape) != 1:
        advice = "flatten it with gymnasium.wrappers.FlattenObservation first"
        raise FileFormatError(dataset, "has observations that are no vectors", advice)
    if not isinstance(action, Box) or len(action.shape) != 1:
        advice = "only data of continuous actions can be learned from"
        raise FileFormatError(dataset, f"has actions {action}, that are no vectors", advice)
    if (action.low != -1.0).any() or (action.high != 1.0).any():
        advice = "record it with gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)"
        raise FileFormatError(dataset, f"has actions {action} instead of [-1, 1]", advice)


def import_minari(dataset: str, folder: Path) -> int:
    """Write a Minari dataset as a new folder of episodes, whole or not at all.

    Returns:
        The number of episodes.

    Raises:
        FileFormatError, NonFiniteError: As `from_minari`, or if there are no episodes.
        StorageError: If the folder exists, or a file cannot be written.
    """
    count = 0
    with new_folder(folder) as draft:
        for count, episode in enumerate(from_minari(dataset), 1):
            save_episode(episode, draft, count - 1)
        if not count:
            raise FileFormatError(dataset, "holds no episodes", _ADVICE)
    return count

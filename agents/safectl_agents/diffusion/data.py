"""Offline data as plain arrays: Minari datasets and HDF5 files of D4RL, checked while loading."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import h5py
import minari
import numpy as np
from jaxtyping import Bool, Float32, Int64
from minari.dataset.minari_dataset import MinariDataset
from scipy.signal import lfilter

from safectl.errors import FileFormatError, NonFiniteError, RangeError, ShapeError

MAX_PATH = 40_000
"""Steps of an episode after which no plan begins, less the horizon, as in Diffuser's maze2d."""
_KEYS = ("observations", "actions", "rewards", "terminals")
"""Parts of a file, in the order of an episode's arrays; Minari says terminations."""
_ADVICE = "download or make it again"


class OfflineData(NamedTuple):
    """Episodes one after the other, float32.

    Attributes:
        observations: Shape (N, nx), in the units of the data set.
        actions: Shape (N, nu).
        rewards: Shape (N,).
        ends: Whether a row is the last of its episode, shape (N,).
        failed: Whether its episode ended there by failure and not by time, shape (N,).
    """

    observations: Float32[np.ndarray, "N nx"]
    actions: Float32[np.ndarray, "N nu"]
    rewards: Float32[np.ndarray, " N"]
    ends: Bool[np.ndarray, " N"]
    failed: Bool[np.ndarray, " N"]


def load_dataset(source: Path | str) -> OfflineData:
    """Read a data set.

    Args:
        source: Folder of a Minari dataset, an HDF5 file of D4RL, or the identifier of a Minari
            dataset on this machine. In a file of maze2d, which is one long stream, an episode ends
            where the mass leaves the zone of the goal (Diffuser, `maze2d_set_terminals`); the row
            on which it leaves is not part of an episode.

    Raises:
        FileFormatError: If it does not exist, is truncated or empty, a part or its description is
            missing or foreign.
        NonFiniteError: If it holds NaN or infinity.
        ShapeError: If its parts differ in length.
    """
    path = Path(source)
    if path.suffix in (".hdf5", ".h5"):
        return _checked(_read_d4rl(path))
    return _checked(_read_minari(path if path.is_dir() else str(source)))


def windows(data: OfflineData, horizon: int, *, max_path: int = MAX_PATH) -> Int64[np.ndarray, "M"]:
    """Return the rows at which plans of `horizon` rows begin, without padding.

    In an episode of L rows these are the first min(L - 1, max_path - horizon, L - horizon).

    Raises:
        RangeError: If the horizon is not positive.
    """
    if horizon < 1:
        raise RangeError("horizon", value=horizon, expected="at least 1")
    stops = np.flatnonzero(data.ends) + 1
    begins = np.concatenate([[0], stops[:-1]])
    counts = np.minimum(
        np.minimum(stops - begins - 1, stops - begins - horizon), max_path - horizon
    )
    parts = [np.arange(begin, begin + count) for begin, count in zip(begins, counts, strict=True)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def goal_exits(rewards: Float32[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Return the rows of a maze2d stream after which the mass is no longer at the goal.

    Args:
        rewards: 1 where the row's observation is within 0.5 m of the goal, else 0.
    """
    at_goal = rewards > 0.0
    return np.append(at_goal[:-1] & ~at_goal[1:], False)


def returns_to_go(
    data: OfflineData, discount: float, *, penalty: float = 0.0
) -> Float32[np.ndarray, " N"]:
    """Return the discounted sum of rewards from each row to the end of its episode.

    Args:
        data: Episodes.
        discount: Weight of a reward per step that it lies ahead, in [0, 1].
        penalty: Added to the reward of the row at which an episode failed.

    Raises:
        RangeError: If the discount is not in [0, 1].
    """
    if not 0.0 <= discount <= 1.0:
        raise RangeError("discount", value=discount, expected="a number in [0, 1]")
    rewards = data.rewards + penalty * data.failed
    stops = np.flatnonzero(data.ends) + 1
    begins = np.concatenate([[0], stops[:-1]])
    # y_t = r_t + discount y_(t+1) is a recursive filter over the reversed episode.
    parts = [
        lfilter([1.0], [1.0, -discount], rewards[begin:stop][::-1])[::-1]
        for begin, stop in zip(begins, stops, strict=True)
    ]
    return _float32(np.concatenate(parts))


def _read_minari(source: Path | str) -> OfflineData:
    """Read a folder, or a dataset by its identifier; the last observation of an episode is left."""
    try:
        if isinstance(source, str):
            dataset = minari.load_dataset(source)
        else:
            dataset = MinariDataset(os.fspath(source / "data"))
        parts = [
            (
                _rows(episode.observations)[:-1],
                _rows(episode.actions),
                _float32(episode.rewards),
                np.asarray(episode.terminations, np.bool_),
            )
            for episode in dataset.iterate_episodes()
        ]
    except (OSError, LookupError, TypeError, ValueError, AttributeError, ImportError) as error:
        problem = f"is no whole Minari dataset ({type(error).__name__}: {error})"
        raise FileFormatError(source, problem, _ADVICE) from error
    for index, part in enumerate(parts):
        _require_equal(f"{source}: episode {index}: ", dict(zip(_KEYS, part, strict=False)))
    parts = [part for part in parts if len(part[1])]
    if not parts:
        raise FileFormatError(source, "holds no step", _ADVICE)
    if len({(part[0].shape[1], part[1].shape[1]) for part in parts}) > 1:
        raise FileFormatError(source, "has episodes of different widths", _ADVICE)
    ends = np.zeros(sum(len(part[1]) for part in parts), np.bool_)
    ends[np.cumsum([len(part[1]) for part in parts]) - 1] = True
    observations, actions, rewards, failed = (
        np.concatenate(each) for each in zip(*parts, strict=True)
    )
    return OfflineData(observations, actions, rewards, ends, failed)


def _read_d4rl(path: Path) -> OfflineData:
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in _KEYS if key not in file]
            if missing:
                problem = f"has no {', '.join(missing)}"
                raise FileFormatError(path, problem, "name a data set in the layout of D4RL")
            groups = [key for key in _KEYS if not isinstance(file[key], h5py.Dataset)]
            if groups:
                problem = f"has a group and no array as {', '.join(groups)}"
                raise FileFormatError(path, problem, "name a data set in the layout of D4RL")
            arrays = {key: np.asarray(file[key]) for key in (*_KEYS, "timeouts") if key in file}
            is_maze = "infos/goal" in file
    except FileNotFoundError as error:
        raise FileFormatError(path, "does not exist", "check the name") from error
    except (OSError, KeyError, RuntimeError) as error:
        raise FileFormatError(path, f"cannot be read as HDF5 ({error})", _ADVICE) from error
    _require_equal(f"{path}: ", arrays)
    if not len(arrays["actions"]):
        raise FileFormatError(path, "holds no step", _ADVICE)
    try:
        arrays |= {key: _rows(arrays[key]) for key in _KEYS[:2]}
        return _split_maze(arrays) if is_maze else _split_episodes(arrays)
    except (TypeError, ValueError) as error:
        raise FileFormatError(path, f"holds no rows of numbers ({error})", _ADVICE) from error


def _require_equal(place: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays of another length than the actions."""
    count = arrays["actions"].shape[:1]
    for name, array in arrays.items():
        if array.shape[:1] != count:
            raise ShapeError(f"{place}{name}", expected=(*count, "..."), got=array.shape)


def _split_episodes(arrays: Mapping[str, np.ndarray]) -> OfflineData:
    failed = arrays["terminals"].astype(np.bool_)
    ends = failed | arrays.get("timeouts", failed).astype(np.bool_)
    ends[-1:] = True
    observations, actions, rewards = (_float32(arrays[key]) for key in _KEYS[:3])
    return OfflineData(observations, actions, rewards, ends, failed)


def _split_maze(arrays: Mapping[str, np.ndarray]) -> OfflineData:
    observations, actions, rewards = (_float32(arrays[key]) for key in _KEYS[:3])
    last = goal_exits(rewards)
    last[-1:] = True
    keep = ~last
    ends = np.append(last[1:], True)[keep]
    # An exit that follows another one at once leaves no row and must not end the rows before.
    failed = np.zeros_like(ends)  # an episode of maze2d ends by time
    return OfflineData(observations[keep], actions[keep], rewards[keep], ends, failed)


def _checked(data: OfflineData) -> OfflineData:
    for name, array in zip(data._fields, data, strict=True):
        bad = int((~np.isfinite(array)).sum())
        if bad:
            advice = "find the rows and leave their episodes out"
            raise NonFiniteError(name, count=bad, size=array.size, advice=advice)
    return data


def _rows(array: np.ndarray) -> Float32[np.ndarray, "N width"]:
    found = _float32(array)
    if found.ndim != 2:
        raise ValueError(f"shape {found.shape} where (N, width) was expected")
    return found


def _float32(array: np.ndarray) -> Float32[np.ndarray, "..."]:
    return np.asarray(array, dtype=np.float32)

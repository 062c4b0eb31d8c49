"""Episodes on disk in the format of ExORL, and transitions drawn from them.

One compressed npz per episode, `episode_<index>_<length>.npz`, read without pickle. Row t of every
array belongs to the state after step t; row 0 is the reset, with action, reward and discount of
no meaning. Transition t is (observation[t-1], action[t], observation[t]).
"""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safectl.errors import FileFormatError, NonFiniteError, RangeError
from safectl.files import new_file
from safectl.seed import numpy_generator

Subset = Literal["uniform", "contiguous"]

_DAMAGED = (
    *(OSError, KeyError, ValueError, TypeError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What numpy and zipfile raise on a damaged file; NotImplementedError is a RuntimeError."""

_ADVICE = "collect it again, or convert it with numpy.savez to plain float arrays"

_NAME = re.compile(r"[^_]*_[0-9]+_0*[1-9][0-9]{0,8}\.npz")
_REAL = "fiub"
"""Kinds of numbers that become floats without loss of meaning."""
_TOLERANCE = 1e-6
"""By which rounding may carry an action or a discount over its range."""


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """One episode of T steps.

    Attributes:
        observation: Shape (T + 1, nx).
        action: Action that led to the row, shape (T + 1, nu).
        reward: On entering the row, shape (T + 1, tasks).
        discount: 1, or 0 where the episode terminated, shape (T + 1,).
        physics: Simulator states, shape (T + 1, states); None where they were not stored.
        skill: Skill at the next action, shape (T + 1, skills); None without any.
    """

    observation: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    physics: NDArray[np.float64] | None = None
    skill: NDArray[np.float32] | None = None

    @property
    def steps(self) -> int:
        """Number of transitions."""
        return len(self.observation) - 1


class Transitions(NamedTuple):
    """Rows of transitions, in the order of the data.

    `physics` are the simulator states that were entered, where those are known; `place` is the
    number of the transition in the whole data and that of the last one of its episode, (rows, 2).
    """

    observation: NDArray[np.float32]
    action: NDArray[np.float32]
    next_observation: NDArray[np.float32]
    discount: NDArray[np.float32]
    physics: NDArray[np.float64] | None
    place: NDArray[np.int64] | None = None


def episode_path(folder: Path, index: int, steps: int) -> Path:
    """Return where the episode of this number and length lies."""
    return folder / f"episode_{index:06d}_{steps}.npz"


def save_episode(episode: Episode, folder: Path, index: int) -> Path:
    """Write one episode, whole or not at all.

    Raises:
        StorageError: If it cannot be written.
    """
    path = episode_path(folder, index, episode.steps)
    arrays: dict[str, NDArray[np.float32] | NDArray[np.float64]] = {
        "observation": episode.observation,
        "action": episode.action,
        "reward": episode.reward,
        "discount": episode.discount,
    }
    if episode.physics is not None:
        arrays["physics"] = episode.physics
    if episode.skill is not None:
        arrays["skill"] = episode.skill
    with new_file(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return path


def load_episode(path: Path) -> Episode:
    """Read one episode; rewards and discounts of shape (T+1,) or (T+1, n), unknown keys ignored.

    Raises:
        FileFormatError: If it is damaged, holds pickled objects, its arrays do not fit, or actions
            or discounts lie outside their range.
        NonFiniteError: If a number is NaN or infinite.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            kept = ("observation", "action", "reward", "discount", "physics", "skill")
            arrays = {name: np.asarray(file[name]) for name in kept if name in file.files}
    except _DAMAGED as error:
        raise FileFormatError(path, f"is no episode ({error})", _ADVICE) from error
    return episode_of(arrays, path)


def episode_of(arrays: Mapping[str, NDArray[Any]], source: object) -> Episode:
    """Make an episode of arrays of a stranger.

    Args:
        arrays: `observation` and `action`; where they exist `reward`, `discount`,
            `physics` and `skill`.
        source: Where they are from, for messages.

    Raises:
        FileFormatError, NonFiniteError: As `load_episode`.
    """
    for name in ("observation", "action"):
        if name not in arrays:
            raise FileFormatError(source, f"is no episode: it holds no {name}", _ADVICE)
    for name, array in arrays.items():
        if array.dtype.kind not in _REAL:
            raise FileFormatError(source, f"holds {name} of type {array.dtype}", _ADVICE)
    observation = arrays["observation"].astype(np.float32)
    action = arrays["action"].astype(np.float32)
    rows = observation.shape[0] if observation.ndim else 0
    reward = arrays.get("reward", np.zeros(rows)).astype(np.float32)
    discount = arrays.get("discount", np.ones(rows)).astype(np.float32)
    physics = arrays["physics"].astype(np.float64) if "physics" in arrays else None
    skill = arrays["skill"].astype(np.float32) if "skill" in arrays else None
    if observation.ndim != 2 or action.ndim != 2 or len(action) != rows or rows < 2:
        shapes = f"observation {observation.shape}, action {action.shape}"
        raise FileFormatError(source, f"holds {shapes}; expected (T+1, n) of both", _ADVICE)
    for name, shape, fits in (
        ("observation", observation.shape, observation.size > 0),
        ("action", action.shape, action.size > 0),
        ("reward", reward.shape, reward.ndim in (1, 2) and reward.size > 0),
        ("discount", discount.shape, discount.shape in ((rows,), (rows, 1))),
    ):
        if not fits or shape[0] != rows:
            raise FileFormatError(source, f"holds {name} of shape {shape}", _ADVICE)
    reward, discount = reward.reshape(rows, -1), discount.reshape(rows)
    for name, part in (("physics", physics), ("skill", skill)):
        if part is not None and (part.ndim != 2 or len(part) != rows):
            raise FileFormatError(source, f"holds {name} of shape {part.shape}", _ADVICE)
    episode = Episode(observation, action, reward, discount, physics, skill)
    _check_numbers(episode, source)
    return episode


def _check_numbers(episode: Episode, source: object) -> None:
    """Refuse what is not finite or out of range; action and discount of the reset do not count."""
    action, discount = episode.action[1:], episode.discount[1:]
    for name, values in (
        ("observation", episode.observation),
        ("action", action),
        ("reward", episode.reward),
        ("discount", discount),
        ("physics", np.zeros(0) if episode.physics is None else episode.physics),
        ("skill", np.zeros(0) if episode.skill is None else episode.skill),
    ):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise NonFiniteError(
                f"{name} of {source}", count=bad, size=values.size, advice="delete this episode"
            )
    for name, values, low in (("actions", action, -1.0), ("discounts", discount, 0.0)):
        if values.min() < low - _TOLERANCE or values.max() > 1.0 + _TOLERANCE:
            problem = f"holds {name} from {values.min():g} to {values.max():g}"
            advice = f"scale them to [{low:g}, 1]"
            raise FileFormatError(source, problem, advice)


def episode_paths(folder: Path) -> list[Path]:
    """Return the episodes of a folder by number; their names end in `_<index>_<length>.npz`.

    Raises:
        FileFormatError: If there are none, or a name has another form.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        advice = "collect data with: safectl collect, or name the folder buffer/"
        raise FileFormatError(folder, "holds no episodes", advice)
    for path in paths:
        if not _NAME.fullmatch(path.name):
            advice = "name it episode_<index>_<length>.npz, of length >= 1, or move it away"
            raise FileFormatError(path, "has a name of another form", advice)
    return sorted(paths, key=lambda path: int(path.stem.split("_")[1]))


def digest_of_data(folder: Path) -> str:
    """Return a SHA-256 of names, which hold the lengths, and of sizes of the episodes.

    Raises:
        FileFormatError: As `episode_paths`.
    """
    lines = (f"{path.name} {path.stat().st_size}\n" for path in episode_paths(folder))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_transitions(
    folder: Path, *, count: int = 100_000, subset: Subset = "uniform", seed: int = 42
) -> Transitions:
    """Draw transitions without replacement, reading one episode at a time.

    Args:
        folder: Episodes.
        count: How many; all where there are fewer.
        subset: `uniform` over all episodes, or the first `contiguous` ones.
        seed: Of the draw, apart from that of a training, so that every training sees one subset.

    Raises:
        FileFormatError: If an episode cannot be used or differs from the first in its sizes.
        NonFiniteError: If a number is NaN or infinite.
        RangeError: If `count` < 1.
    """
    if count < 1:
        raise RangeError("transitions", value=count, expected=">= 1")
    paths = episode_paths(folder)
    lengths = np.array([int(path.stem.split("_")[2]) for path in paths])
    total = int(lengths.sum())
    chosen = np.arange(min(count, total))
    if subset == "uniform":
        generator = numpy_generator(seed, "subset")
        chosen = np.sort(generator.choice(total, len(chosen), replace=False))
    ends = np.cumsum(lengths)
    parts = []
    for path, end, length in zip(paths, ends, lengths, strict=True):
        rows = chosen[(chosen >= end - length) & (chosen < end)] - (end - length) + 1
        if len(rows):
            parts.append(_rows_of(path, rows, int(length)))
    last = ends[np.searchsorted(ends, chosen, side="right")] - 1
    return _join(parts, folder)._replace(place=np.stack([chosen, last], 1))


def _rows_of(path: Path, rows: NDArray[np.int64], length: int) -> Transitions:
    episode = load_episode(path)
    if episode.steps != length:
        problem = f"holds {episode.steps} steps, its name says {length}"
        raise FileFormatError(path, problem, _ADVICE)
    return Transitions(
        episode.observation[rows - 1],
        episode.action[rows],
        episode.observation[rows],
        episode.discount[rows],
        None if episode.physics is None else episode.physics[rows],
    )


def _join(parts: list[Transitions], folder: Path) -> Transitions:
    sizes = {(part.observation.shape[1], part.action.shape[1]) for part in parts}
    if len(sizes) > 1:
        problem = f"mixes episodes of different sizes (observations, actions): {sorted(sizes)}"
        raise FileFormatError(folder, problem, "keep one domain per folder")
    states = [part.physics for part in parts if part.physics is not None]
    return Transitions(
        np.concatenate([part.observation for part in parts]),
        np.concatenate([part.action for part in parts]),
        np.concatenate([part.next_observation for part in parts]),
        np.concatenate([part.discount for part in parts]),
        np.concatenate(states) if len(states) == len(parts) else None,
    )

"""The record of every training episode, from step zero, as a CSV file.

One row per episode; an episode cut by a checkpoint has `ended` = `boundary` and counts its
violations like any other. The file holds no clock, so equal runs give equal files.
"""

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from safectl.errors import FileFormatError, NonFiniteError, StorageError
from safectl.types import Status

Infos = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """One episode of one environment.

    Attributes:
        step: Environment steps of the whole run at its end.
        env: Index of the environment.
        ended: `terminated`, `truncated` or `boundary`.
        length: Steps.
        reward: Sum of rewards, as the environment gave them.
        cost: Sum of `info["cost"]`.
        violations: Steps with a positive cost.
        corrected: Steps whose action the safeguard corrected.
        fallback: Steps on which the safeguard used its fallback.
        violations_total: Violations of all environments since step zero.
    """

    step: int
    env: int
    ended: str
    length: int
    reward: float
    cost: float
    violations: int
    corrected: int
    fallback: int
    violations_total: int


class EpisodeRecorder(VecEnvWrapper):
    """Sum up episodes, write them to a file and refuse NaN and infinity.

    It belongs above the guard and below any normaliser. On the last step of an episode `info`
    gains `episode` with `r`, `l` (the names stable-baselines3 reads), `cost`, `corrected` and
    `fallback`.
    """

    def __init__(self, venv: VecEnv, path: Path, *, step: int, violations: int) -> None:
        super().__init__(venv)
        self.step_count = step
        self.violations_total = violations
        self._path = path
        self._sums = np.zeros((self.num_envs, len(_SUMS)))
        if not path.exists() or path.stat().st_size == 0:
            _append(path, _HEADER)

    def reset(self) -> NDArray[np.floating]:
        """Reset every environment.

        Returns:
            Observations, shape (batch, nx), units of the environment.

        Raises:
            NonFiniteError: If an observation is NaN or infinite.
        """
        self._sums[:] = 0.0
        observation = np.asarray(self.venv.reset())
        _require_finite("observation", observation, "look at the environment's reset")
        return observation

    def step_async(self, actions: NDArray[np.floating]) -> None:
        """Start a step with actions of shape (batch, nu).

        Raises:
            NonFiniteError: If an action is NaN or infinite.
        """
        _require_finite("action", actions, "training diverged: lower the learning rate")
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[NDArray[np.floating], NDArray[Any], NDArray[Any], Infos]:
        """Finish the step and record the episodes that ended.

        Raises:
            NonFiniteError: If an observation, a reward or a cost is NaN or infinite.
            StorageError: If a row cannot be written.
        """
        observation, rewards, dones, infos = self.venv.step_wait()
        observation = np.asarray(observation)
        costs = np.array([info.get("cost", 0.0) for info in infos], dtype=np.float64)
        finals = [i["terminal_observation"] for i in infos if "terminal_observation" in i]
        advice = f"look at the environment's step near step {self.step_count} of the run"
        for name, array in (("observation", observation), ("reward", rewards), ("cost", costs)):
            _require_finite(name, array, advice)
        _require_finite("terminal observation", np.array(finals), advice)
        self.step_count += self.num_envs
        statuses = np.array([info.get("status", Status.KEPT) for info in infos])
        violated = costs > 0.0
        self.violations_total += int(violated.sum())
        self._sums += np.stack(
            [
                np.ones(self.num_envs),
                rewards,
                costs,
                violated,
                statuses == Status.CORRECTED,
                statuses == Status.FALLBACK,
            ],
            axis=1,
        )
        for index in np.flatnonzero(dones):
            row = self._end(int(index), "truncated" if _truncated(infos[index]) else "terminated")
            infos[index]["episode"] = {
                "r": row.reward,
                "l": row.length,
                "cost": row.cost,
                "corrected": row.corrected,
                "fallback": row.fallback,
            }
        return observation, rewards, dones, infos

    def finish(self) -> int:
        """Write the unfinished episodes as `boundary`.

        Returns:
            Size of the file in bytes, where a resumed run goes on.

        Raises:
            StorageError: If a row cannot be written.
        """
        for index in range(self.num_envs):
            if self._sums[index, 0] > 0.0:
                self._end(index, "boundary")
        return self._path.stat().st_size

    def _end(self, index: int, ended: str) -> EpisodeRow:
        sums = dict(zip(_SUMS, self._sums[index].tolist(), strict=True))
        row = EpisodeRow(
            self.step_count,
            index,
            ended,
            int(sums["length"]),
            sums["reward"],
            sums["cost"],
            int(sums["violations"]),
            int(sums["corrected"]),
            int(sums["fallback"]),
            self.violations_total,
        )
        self._sums[index] = 0.0
        _append(self._path, astuple(row))
        return row


def read_episodes(path: Path) -> list[EpisodeRow]:
    """Read what `EpisodeRecorder` wrote.

    Raises:
        FileFormatError: If the file is missing or is no such table.
    """
    advice = "name the folder of a training run"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError) as error:
        raise FileFormatError(path, f"cannot be read ({error})", advice) from error
    if header != _HEADER:
        raise FileFormatError(path, f"has the columns {header}", advice)
    try:
        return [_parse(row) for row in rows]
    except (ValueError, TypeError) as error:
        raise FileFormatError(path, f"holds a broken row ({error})", advice) from error


def rewind(path: Path, size: int) -> None:
    """Drop what was written after a checkpoint; nothing to do for a size of zero and no file.

    Raises:
        FileFormatError: If the file is shorter than it was at the checkpoint.
        StorageError: If it cannot be changed.
    """
    if not path.exists() and size == 0:
        return
    if not path.exists() or path.stat().st_size < size:
        problem = f"is missing or shorter than the {size} bytes it had at the checkpoint"
        raise FileFormatError(path, problem, "restore the file from a copy of the run")
    try:
        with path.open("r+b") as file:
            file.truncate(size)
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error


_SUMS = ("length", "reward", "cost", "violations", "corrected", "fallback")
_HEADER = [field.name for field in fields(EpisodeRow)]


def _append(path: Path, row: Sequence[object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error


def _parse(row: list[str]) -> EpisodeRow:
    step, env, ended, length, reward, cost, violations, corrected, fallback, total = row
    return EpisodeRow(
        int(step),
        int(env),
        ended,
        int(length),
        float(reward),
        float(cost),
        int(violations),
        int(corrected),
        int(fallback),
        int(total),
    )


def _truncated(info: dict[str, Any]) -> bool:
    return bool(info.get("TimeLimit.truncated", False))


def _require_finite(name: str, array: NDArray[Any], advice: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        count = int(array.size - finite.sum())
        raise NonFiniteError(name, count=count, size=array.size, advice=advice)

"""Logs of motion from the files that people have: CSV, npz, step records, Minari datasets."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from safectl.errors import FileFormatError, MissingExtra, RangeError
from safectl_agents.composites.log import Log, load_log, log_of_record

_ADVICE = "write a line with names, then numbers"


@dataclass(frozen=True, slots=True)
class Columns:
    """What of a log is u, y and sensors: names, or for a Minari dataset numbers of entries."""

    inputs: tuple[str, ...] = ()
    """Columns of the inputs u of a CSV file."""
    outputs: tuple[str, ...] = ()
    """Columns or observations that are the outputs y."""
    sensors: tuple[str, ...] = ()
    """Columns or observations that are measured with y."""


def read_logs(source: Path, columns: Columns) -> list[Log]:
    """Read the runs of a file or dataset.

    An npz file holds the arrays `inputs`, `outputs` and `sensors`. Row n of a CSV file holds u(n)
    and what was measured after it. In a step record (MCAP) and a Minari dataset the action leads to
    the next observation.

    Args:
        source: File with the suffix .npz, .csv or .mcap; otherwise the folder of a Minari dataset.
        columns: Not for npz.

    Raises:
        FileFormatError: If it cannot be read.
        RangeError: If a name is not in it.
        MissingExtra: If it is a Minari dataset and minari is not installed.
        NonFiniteError: If a value is not finite.
    """
    match source.suffix:
        case ".npz":
            return [load_log(source)]
        case ".csv":
            return [_read_csv(source, columns)]
        case ".mcap":
            return [log_of_record(source, outputs=columns.outputs, sensors=columns.sensors)]
        case _:
            return _read_minari(source, columns)


def _read_csv(path: Path, columns: Columns) -> Log:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names, *lines = [row for row in csv.reader(file) if row]
        table = np.array(lines, np.float64).reshape(-1, len(names))
    except (OSError, ValueError) as error:
        raise FileFormatError(path, f"is no table of numbers ({error})", _ADVICE) from error
    chosen = (columns.inputs, columns.outputs, columns.sensors)
    return Log(*(_columns(table, names, part) for part in chosen))


def _read_minari(source: Path, columns: Columns) -> list[Log]:
    try:
        from minari.dataset.minari_dataset import MinariDataset
    except ModuleNotFoundError as error:
        raise MissingExtra("minari", "bags") from error
    try:
        episodes = list(MinariDataset(str(source / "data")).iterate_episodes())
        parts = [(np.asarray(e.actions), np.asarray(e.observations)) for e in episodes]
    except (OSError, KeyError, ValueError, AttributeError) as error:
        problem = f"is neither a log nor a whole Minari dataset ({error})"
        raise FileFormatError(source, problem, "give a .csv, .npz, .mcap or a dataset") from error
    logs = []
    for actions, observations in parts:
        seen = observations.reshape(len(observations), -1)
        names = [str(index) for index in range(seen.shape[1])]
        after = (_columns(seen[1:], names, part) for part in (columns.outputs, columns.sensors))
        logs.append(Log(torch.as_tensor(actions, dtype=torch.float64), *after))
    return logs


def _columns(table: np.ndarray, names: Sequence[str], chosen: Sequence[str]) -> Tensor:
    missing = sorted(set(chosen) - set(names))
    if missing:
        raise RangeError("columns", value=missing, expected=f"some of {list(names)}")
    return torch.from_numpy(
        np.ascontiguousarray(table[:, [names.index(name) for name in chosen]], np.float64)
    )

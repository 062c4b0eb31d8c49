"""What a run scored: at its last step, at its best one, and beside reference levels."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from safectl.errors import FileFormatError
from safectl.seed import numpy_generator
from safectl_agents.fb.domains import Domain, facts_of
from safectl_agents.fb.evaluate import score
from safectl_agents.fb.train import load_config

_REFERENCE_EPISODES = 4


class Evaluations(NamedTuple):
    """Scores (evaluations, tasks) at updates (evaluations,)."""

    steps: NDArray[np.int64]
    tasks: tuple[str, ...]
    scores: NDArray[np.float64]


class Report(NamedTuple):
    """Scores per task of each row: last step, best step, references."""

    tasks: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]


def report(folder: Path) -> Report:
    """Return the scores of a run beside those of random and of no actions, and of a controller.

    The best step is chosen on the very tasks it is scored on, so it is optimistic.

    Raises:
        FileFormatError: If the folder holds no run or no evaluation.
    """
    domain = load_config(folder).domain
    found = read_evaluations(folder)
    best = int(found.scores.mean(1).argmax())
    rows = {
        f"last, update {found.steps[-1]}": tuple(map(float, found.scores[-1])),
        f"best, update {found.steps[best]}": tuple(map(float, found.scores[best])),
        "random actions": reference(domain, scale=1.0),
        "no action": reference(domain, scale=0.0),
    }
    ceilings = facts_of(domain).ceilings
    if ceilings:
        rows["scripted controller"] = tuple(ceilings[name] for name in found.tasks)
    return Report(found.tasks, rows)


def read_evaluations(folder: Path) -> Evaluations:
    """Read the scores that a run has logged.

    Raises:
        FileFormatError: If there are none.
    """
    head, numbers = read_log(folder / "evaluations.csv")
    return Evaluations(numbers[:, 0].astype(np.int64), head[1:], numbers[:, 1:])


def read_log(path: Path) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Read the names and the rows of a log of `train`, shape (rows, names).

    Raises:
        FileFormatError: If there are no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = list(csv.reader(file))
        numbers = np.array(rows, np.float64).reshape(len(rows), len(head))
    except (OSError, ValueError) as error:
        raise FileFormatError(path, f"holds no log ({error})", "train longer") from error
    if not rows:
        raise FileFormatError(path, "holds no rows", "train longer")
    return tuple(head), numbers


def reference(name: str, *, scale: float) -> tuple[float, ...]:
    """Return the scores of uniform actions in [-scale, scale] on every task."""
    domain, generator = Domain(name), numpy_generator(0, "reference")
    returns = np.zeros((_REFERENCE_EPISODES, len(domain.facts.tasks)))
    for episode in returns:
        domain.reset()
        for _ in range(domain.episode_steps):
            domain.step(scale * generator.uniform(-1.0, 1.0, domain.nu).astype(np.float32))
            episode += domain.rewards()
    return tuple(score(column) for column in returns.T)

"""The learning curve of one seed as a CSV file, one row per evaluation."""

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from safectl.errors import FileFormatError, StorageError
from safectl_agents.acs.evaluation import Scores


@dataclass(frozen=True, slots=True)
class Row:
    """One evaluation, and the training steps since the one before.

    Attributes:
        step: Environment steps since step zero.
        scores: With the safeguard.
        bare_return: Mean return without the safeguard; NaN where it was not measured.
        bare_cost: Mean cost without it; NaN where it was not measured.
        training_violations: Violating steps since step zero.
        corrected_share: Share of training steps whose action was changed.
        iterations_mean: Iterations of the correction per step.
        residual_mean: What was missing to the bound per step.
        distance_mean: Length of the change of the scaled action per step.
        steps_per_second: Training alone.
        evaluation_s: Time of the evaluation [s].
    """

    step: int
    scores: Scores
    bare_return: float
    bare_cost: float
    training_violations: int
    corrected_share: float
    iterations_mean: float
    residual_mean: float
    distance_mean: float
    steps_per_second: float
    evaluation_s: float


def flat(row: Row) -> dict[str, int | float]:
    """Return a row as columns."""
    columns = asdict(row)
    scores = columns.pop("scores")
    step = columns.pop("step")
    return {"step": step, **scores, **columns}


def append(path: Path, row: Row) -> int:
    """Add a row, after a header in a new file; return the size of the file in bytes.

    Raises:
        StorageError: If it cannot be written.
    """
    columns = flat(row)
    cells = [f"{value:.6g}" if isinstance(value, float) else value for value in columns.values()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists() or path.stat().st_size == 0
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(columns)
            writer.writerow(cells)
        return path.stat().st_size
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error


def require_columns(path: Path) -> None:
    """Refuse to go on with a curve of other columns, as that of another version; before training.

    Raises:
        FileFormatError: If it has others.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    scores = [field.name for field in fields(Scores)]
    others = [field.name for field in fields(Row) if field.name not in ("step", "scores")]
    with path.open(encoding="utf-8") as file:
        found = file.readline().strip()
    if found != ",".join(("step", *scores, *others)):
        problem = "has other columns, as those of another version of safectl"
        raise FileFormatError(path, problem, "delete the folder and run the seed again")


def read(path: Path) -> list[Row]:
    """Read a curve; a score that its version did not have is NaN.

    Raises:
        FileFormatError: If the file is missing or is no such table.
    """
    advice = "name the folder of an experiment"
    names = [field.name for field in fields(Scores)]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{key: float(cell) for key, cell in row.items()} for row in csv.DictReader(file)]
        return [_row(row, names) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FileFormatError(path, f"is no learning curve ({error})", advice) from error


def _row(columns: dict[str, float], names: list[str]) -> Row:
    scores = Scores(**{name: columns.pop(name) for name in names if name in columns})
    step, violations = int(columns.pop("step")), int(columns.pop("training_violations"))
    return Row(step=step, scores=scores, training_violations=violations, **columns)

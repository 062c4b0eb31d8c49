"""A finished experiment as a table and as curves: mean and deviation over the seeds."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from safectl.errors import FileFormatError
from safectl.files import new_file, read_json, write_json
from safectl_agents.acs import curve
from safectl_agents.acs.seed_run import RunSettings
from safectl_agents.acs.tasks import Task, find_task
from safectl_agents.plots import COLOURS

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""What each method's finished seeds left in `result.json`."""

_SEED = re.compile(r"seed-[0-9]+")
_SHARED = tuple(
    field.name
    for field in fields(RunSettings)
    if field.name not in ("method", "seed", "threads", "checkpoint_every")
)
"""Settings that seeds of one comparison share."""

_COLUMNS = ("return_mean", "cost_mean", "violation_rate", "safe_share", "corrected_share")
_OUTCOMES = ("success_share", "collisions_mean")  # of tasks that report them


def report(folder: Path, task: str) -> Path | None:
    """Write `summary.json`, `summary.md` and `curves.png` of a task; None without a finished seed.

    Raises:
        FileFormatError: If a result or a curve is damaged.
        StorageError: If a file cannot be written.
    """
    results = read_results(folder / task)
    if not results:
        return None
    summary = {name: summarise(seeds, find_task(task)) for name, seeds in results.items()}
    write_json(folder / task / "summary.json", {"task": task, "methods": summary})
    with new_file(folder / task / "summary.md") as draft:
        draft.write_text(table(summary), encoding="utf-8")
    plot(folder / task, list(results), folder / task / "curves.png")
    return folder / task / "summary.md"


def read_results(folder: Path) -> Results:
    """Read the results of every finished seed by method, seeds in order.

    Raises:
        FileFormatError: If a result is damaged, or seeds were trained in unlike ways.
    """
    found = _finished(folder)
    _compare({place: result["settings"] for place, result in found.items()})
    results: dict[str, list[dict[str, Any]]] = {}
    for place, result in found.items():
        results.setdefault(place.parent.name, []).append(result)
    return results


def require_alike(folder: Path, planned: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse seeds that could not stand in one table with each other and with finished ones.

    Args:
        folder: Of the task.
        planned: Settings of seeds by their folder `<method>/seed-<n>` in it.

    Raises:
        FileFormatError: If a result is damaged, or two seeds differ in more than method and seed.
    """
    found = {place: result["settings"] for place, result in _finished(folder).items()}
    _compare(found | dict(planned))


def _finished(folder: Path) -> dict[Path, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("*/seed-*/result.json"), key=_order):
        if not _SEED.fullmatch(path.parent.name):
            continue
        result = read_json(path, advice="delete this folder and run the seed again")
        if "final" not in result or not isinstance(result.get("settings"), dict):
            raise FileFormatError(path, "is no result", "delete this folder and run it again")
        found[path.parent] = result
    return found


def _compare(settings: Mapping[Path, Mapping[str, Any]]) -> None:
    first: dict[tuple[str, str], tuple[Path, object]] = {}
    for place, ours in settings.items():
        method = place.parent.name
        for name in _SHARED:
            value = bool(ours.get(name)) if name == "critic_from" else ours.get(name)
            owner = method if name == "critic_from" else ""  # not every method can adopt one
            other, expected = first.setdefault((owner, name), (place, value))
            if value != expected:
                problem = f"has {name} {value!r}, that of {other} is {expected!r}"
                advice = (
                    "compare unlike trainings in folders of their own: safectl bench acs --folder"
                )
                raise FileFormatError(place, problem, advice)


def summarise(seeds: Sequence[Mapping[str, Any]], task: Task) -> dict[str, Any]:
    """Return per-seed values, mean and deviation of the columns of one method.

    Where the task has a reference, return, violation and cost rate are also given normalised:
    J_r / J_r_ref, max(0, J_c - d) / max(1e-6, J_c_ref - d) and rho / rho_ref, where rho is the
    cost per step of all training.
    """
    finals = [seed["final"] for seed in seeds]
    reported = [name for name in _OUTCOMES if all(end.get(name) is not None for end in finals)]
    values = {name: [end[name] for end in finals] for name in (*_COLUMNS, *reported)}
    values["training_violations"] = [seed["training_violations"] for seed in seeds]
    values["training_cost_rate"] = [seed["training_cost_rate"] for seed in seeds]
    values["steps_per_second"] = [seed["steps_per_second"] for seed in seeds]
    if task.reference is not None:
        reward, cost, rate = task.reference
        over = max(1e-6, cost - task.cost_limit)
        values["normalised_return"] = [value / reward for value in values["return_mean"]]
        values["normalised_violation"] = [
            max(0.0, value - task.cost_limit) / over for value in values["cost_mean"]
        ]
        values["normalised_cost_rate"] = [value / rate for value in values["training_cost_rate"]]
    return {
        "seeds": [seed["settings"]["seed"] for seed in seeds],
        "steps": seeds[0]["settings"]["steps"],
        **{
            name: {
                "mean": float(np.mean(column)),
                "std": float(np.std(column, ddof=1)) if len(column) > 1 else None,
                "per_seed": column,
            }
            for name, column in values.items()
        },
    }


def table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the summary as Markdown, methods by cost."""
    reported = [name for name in _OUTCOMES if all(name in row for row in summary.values())]
    names = (*_COLUMNS, *reported, "training_violations", "steps_per_second")
    lines = [
        "| method | seeds | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|" + "---|" * (len(names) + 2),
    ]
    for method in sorted(summary, key=lambda key: float(summary[key]["cost_mean"]["mean"])):
        row = summary[method]
        cells = [_cell(row[name]) for name in names]
        lines.append(f"| {method} | {len(row['seeds'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(folder: Path, methods: Sequence[str], path: Path) -> None:
    """Draw return and cost over steps: mean over the seeds, the range between them shaded.

    Raises:
        FileFormatError: If a curve is damaged.
        StorageError: If the picture cannot be written.
    """
    figure = Figure(figsize=(12.0, 4.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    lines = cycle(product(("-", "--"), COLOURS))
    for method, line in zip(methods, lines, strict=False):
        paths = sorted((folder / method).glob("seed-*/curve.csv"))
        curves = [
            curve.read(found)
            for found in paths
            if (found.parent / "result.json").exists() and _SEED.fullmatch(found.parent.name)
        ]
        _draw(panels[0], curves, lambda row: row.scores.return_mean, method, line)
        _draw(panels[1], curves, lambda row: row.scores.cost_mean, method, line)
        _draw(panels[2], curves, lambda row: float(row.training_violations), method, line)
    titles = ("return per episode", "cost per episode", "training violations since step 0")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("environment steps")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(visible=True, alpha=0.25)
        panel.xaxis.set_major_formatter(EngFormatter())
    panels[0].legend(loc="best", frameon=False, fontsize=8)
    figure.suptitle(folder.name)
    with new_file(path) as draft:
        canvas.print_figure(draft, dpi=120, format="png")


def _draw(
    panel: Axes,
    curves: list[list[curve.Row]],
    of: Callable[[curve.Row], float],
    label: str,
    line: tuple[str, str],
) -> None:
    count = min(len(rows) for rows in curves)
    steps = np.array([row.step for row in curves[0][:count]])
    values = np.array([[of(row) for row in rows[:count]] for rows in curves])
    style, colour = line
    panel.plot(steps, values.mean(0), style, color=colour, label=label)
    if len(curves) > 1:
        panel.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)


def _cell(column: Mapping[str, Any]) -> str:
    spread = "" if column["std"] is None else f" ± {column['std']:.3g}"
    return f"{column['mean']:.4g}{spread}"


def _order(path: Path) -> tuple[str, int]:
    digits = path.parent.name.removeprefix("seed-")
    return path.parts[-3], int(digits) if digits.isdecimal() else 0

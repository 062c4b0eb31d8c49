"""A finished experiment as a table and as curves, beside reference levels.

The last step and the best one are both given. The best one maximises the mean score over tasks and
seeds, and is chosen on the very scores it reports, so it is optimistic.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from scipy import stats

from safectl.errors import FileFormatError
from safectl.files import new_file, read_json, write_json
from safectl.seed import numpy_generator
from safectl_agents.fb.domains import facts_of
from safectl_agents.fb.report import read_evaluations, reference
from safectl_agents.fb.results import read_results, require_alike
from safectl_agents.plots import COLOURS
from safectl_agents.statistics import Interval, iqm_interval


class Curves(NamedTuple):
    """Scores of the finished seeds of one method.

    Attributes:
        seeds: The seeds.
        steps: Updates of the evaluations that all seeds share, shape (evaluations,).
        tasks: Names of the tasks.
        scores: Shape (seeds, evaluations, tasks).
        results: What each seed left in `result.json`.
    """

    seeds: tuple[int, ...]
    steps: NDArray[np.int64]
    tasks: tuple[str, ...]
    scores: NDArray[np.float64]
    results: tuple[Mapping[str, Any], ...]


def compare(folder: Path, domain: str) -> Path | None:
    """Write `summary.json`, `summary.md`, `scores.csv` and `curves.png` of a domain.

    Returns:
        The table; None without a finished seed.

    Raises:
        ConfigError, FileFormatError: As `read_curves`.
        StorageError: If a file cannot be written.
    """
    found = read_curves(folder / domain)
    if not found:
        return None
    levels = references(folder / domain / "references.json", domain)
    summary = {name: summarise(curves) for name, curves in found.items()}
    document = {"domain": domain, "methods": summary, "references": levels}
    write_json(folder / domain / "summary.json", document)
    with new_file(folder / domain / "summary.md") as draft:
        draft.write_text(table(summary, levels), encoding="utf-8")
    with new_file(folder / domain / "scores.csv") as draft:
        _write_scores(found, draft)
    _plot(found, levels, folder / domain / "curves.png", domain)
    return folder / domain / "summary.md"


def read_curves(folder: Path) -> dict[str, Curves]:
    """Read the scores of every finished seed by method.

    Raises:
        ConfigError: If the settings of a result cannot be read.
        FileFormatError: If a result is damaged, seeds have no evaluation in common, or differ in
            what makes them comparable.
    """
    found = read_results(folder)
    require_alike(found)
    methods: dict[str, dict[Path, Mapping[str, Any]]] = {}
    for place, result in found.items():
        methods.setdefault(place.parent.name, {})[place] = result
    return {name: _join(results) for name, results in methods.items()}


def summarise(curves: Curves) -> dict[str, Any]:
    """Return the scores of one method at the last and at the best step it was evaluated at."""
    best = int(curves.scores.mean((0, 2)).argmax())
    return {
        "seeds": list(curves.seeds),
        "last": _at(curves, len(curves.steps) - 1),
        "best": _at(curves, best),
    }


def iqm(scores: NDArray[np.float64]) -> Interval | float:
    """Return the interquartile mean over runs and tasks; of one run without an interval.

    Args:
        scores: Shape (runs, tasks).
    """
    if len(scores) < 2:
        return float(stats.trim_mean(scores, 0.25, axis=None))
    return iqm_interval(scores, numpy_generator(0, "iqm"))


def references(path: Path, domain: str) -> dict[str, dict[str, float]]:
    """Return the scores of random and of no actions, and of a controller; kept in a file.

    Raises:
        FileFormatError: If the file is damaged.
        StorageError: If it cannot be written.
    """
    if path.exists():
        levels: dict[str, dict[str, float]] = read_json(path, advice="delete it")
        return levels
    tasks, ceilings = tuple(facts_of(domain).tasks), facts_of(domain).ceilings
    levels = {
        "random actions": dict(zip(tasks, reference(domain, scale=1.0), strict=True)),
        "no action": dict(zip(tasks, reference(domain, scale=0.0), strict=True)),
    }
    if ceilings:
        levels["scripted controller"] = dict(ceilings)
    write_json(path, levels)
    return levels


def table(summary: Mapping[str, Any], levels: Mapping[str, Mapping[str, float]]) -> str:
    """Return the comparison as Markdown, all tasks and each of them at the last step.

    Methods come by their last score, references below them.
    """
    tasks = list(next(iter(levels.values())))
    names = sorted(summary, key=lambda name: -float(summary[name]["last"]["mean"]))
    overall = [("", "seeds", "updates", "IQM", "mean", "best IQM (update)")]
    single = [("last, IQM", *tasks)]
    for name in names:
        row, last, best = summary[name], summary[name]["last"], summary[name]["best"]
        cells = (f"{len(row['seeds'])}", f"{last['step']:,}", _words(last["iqm"]))
        chosen = f"{_words(best['iqm'])} ({best['step']:,})"
        overall.append((name, *cells, f"{last['mean']:.1f}", chosen))
        single.append((name, *(f"{last['tasks'][task]:.1f}" for task in tasks)))
    for name, level in levels.items():
        values = [level[task] for task in tasks]
        middle, mean = float(stats.trim_mean(values, 0.25)), float(np.mean(values))
        overall.append((name, "", "", f"{middle:.1f}", f"{mean:.1f}", ""))
        single.append((name, *(f"{value:.1f}" for value in values)))
    return _markdown(overall) + "\n" + _markdown(single)


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines) + "\n"


def _join(results: Mapping[Path, Mapping[str, Any]]) -> Curves:
    logs = [read_evaluations(folder) for folder in results]
    steps = logs[0].steps
    for log in logs[1:]:
        steps = np.intersect1d(steps, log.steps)
    if len(steps) == 0:
        problem = "holds no update at which every seed was evaluated"
        advice = "train all seeds for the same steps"
        raise FileFormatError(next(iter(results)).parent, problem, advice)
    scores = np.stack([log.scores[np.isin(log.steps, steps)] for log in logs])
    seeds = tuple(int(result["config"]["seed"]) for result in results.values())
    return Curves(seeds, steps, logs[0].tasks, scores, tuple(results.values()))


def _at(curves: Curves, row: int) -> dict[str, Any]:
    scores = curves.scores[:, row]
    found = iqm(scores)
    return {
        "step": int(curves.steps[row]),
        "iqm": asdict(found) if isinstance(found, Interval) else {"estimate": found},
        "mean": float(scores.mean()),
        "tasks": {
            task: float(stats.trim_mean(column, 0.25))
            for task, column in zip(curves.tasks, scores.T, strict=True)
        },
        "per_seed": scores.tolist(),
    }


def _words(found: Mapping[str, float]) -> str:
    words = f"{found['estimate']:.1f}"
    return words + (f" [{found['low']:.1f}, {found['high']:.1f}]" if "low" in found else "")


def _write_scores(found: Mapping[str, Curves], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["method", "seed", "step", *next(iter(found.values())).tasks])
        for name, curves in found.items():
            for seed, scores in zip(curves.seeds, curves.scores, strict=True):
                for step, row in zip(curves.steps, scores, strict=True):
                    rows.writerow([name, seed, step, *row])


def _plot(
    found: Mapping[str, Curves],
    levels: Mapping[str, Mapping[str, float]],
    path: Path,
    domain: str,
) -> None:
    tasks = list(next(iter(levels.values())))
    figure = Figure(figsize=(3.2 * (1 + len(tasks)), 3.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + len(tasks), sharey=True)
    for (name, curves), colour in zip(found.items(), cycle(COLOURS), strict=False):
        columns = np.concatenate([curves.scores.mean(2, keepdims=True), curves.scores], 2)
        for panel, scores in zip(panels, np.moveaxis(columns, 2, 0), strict=True):
            panel.plot(curves.steps, scores.mean(0), "o-", ms=3, color=colour, label=name)
            if len(scores) > 1:
                ends = scores.min(0), scores.max(0)
                panel.fill_between(curves.steps, *ends, color=colour, alpha=0.15, lw=0)
    for level, style in zip(levels.values(), ("--", ":", "-."), strict=False):
        values = list(level.values())
        for panel, value in zip(panels, (np.mean(values), *values), strict=True):
            panel.axhline(value, color="black", ls=style, lw=0.8)
    for panel, title in zip(panels, ("mean over tasks", *tasks), strict=True):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("updates")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(visible=True, alpha=0.25)
        panel.xaxis.set_major_formatter(EngFormatter())
    panels[0].legend(loc="best", frameon=False, fontsize=8)
    title = f"{domain}: score, range over the seeds; black: {', '.join(levels)}"
    figure.suptitle(title, fontsize=9)
    with new_file(path) as draft:
        canvas.print_figure(draft, dpi=110, format="png")

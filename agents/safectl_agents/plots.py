"""Training curves of several runs as a PNG: return, cost with its limit, violations so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from safectl.errors import RangeError
from safectl.files import new_file
from safectl_agents.episodes import EpisodeRow, read_episodes

# Okabe and Ito (2008): told apart also by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass(frozen=True, slots=True)
class PlotSettings:
    """How curves are drawn.

    Raises:
        RangeError: If the window or the resolution is not positive.
    """

    title: str = ""
    """Text above the curves."""
    cost_limit: float | None = None
    """Cost per episode drawn as a dashed line; None for no line."""
    window: int = 20
    """Episodes in the moving mean, >= 1; the faint points are the single episodes."""
    dots_per_inch: int = 120
    """Resolution, >= 1; the picture is 12 inches wide."""

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("dots_per_inch", self.dots_per_inch)):
            if value < 1:
                raise RangeError(name, value=value, expected="an integer >= 1")


class Curve(NamedTuple):
    """Values over environment steps, shapes (points,)."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def plot_runs(runs: Mapping[str, Path], path: Path, settings: PlotSettings | None = None) -> None:
    """Overlay training runs and save a PNG.

    Args:
        runs: Folder of each run, by the label it gets.
        path: File to write.
        settings: How to draw; None for the defaults.

    Raises:
        FileFormatError: If a folder holds no record of episodes.
        StorageError: If the file cannot be written.
    """
    settings = settings or PlotSettings()
    figure = Figure(figsize=(12.0, 3.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    for (label, folder), colour in zip(runs.items(), cycle(COLOURS), strict=False):
        rows = read_episodes(folder / "episodes.csv")
        whole = [row for row in rows if row.ended != "boundary"]
        _draw(panels[0], _curve(whole, "reward"), label, colour, settings.window)
        _draw(panels[1], _curve(whole, "cost"), "_", colour, settings.window)
        total = _curve(rows, "violations_total")
        panels[2].step(total.steps, total.values, where="post", color=colour, label=label)
    for panel, name in zip(
        panels, ("return per episode", "cost per episode", "violations since step 0"), strict=True
    ):
        _label(panel, name)
    if settings.cost_limit is not None:
        limit = f"limit {settings.cost_limit:g}"
        panels[1].axhline(settings.cost_limit, color="black", ls="--", lw=1.0, label=limit)
        panels[1].legend(loc="best", frameon=False)
    panels[0].legend(loc="best", frameon=False)
    figure.suptitle(settings.title)
    with new_file(path) as draft:
        canvas.print_figure(draft, dpi=settings.dots_per_inch, format="png")


def smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean of each value and up to `window - 1` before it, shape (points,)."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _curve(rows: list[EpisodeRow], column: str) -> Curve:
    steps = np.array([row.step for row in rows], dtype=np.float64)
    return Curve(steps, np.array([getattr(row, column) for row in rows], dtype=np.float64))


def _draw(panel: Axes, curve: Curve, label: str, colour: str, window: int) -> None:
    panel.plot(curve.steps, curve.values, ".", color=colour, alpha=0.15, markersize=3.0)
    ends = np.flatnonzero(np.diff(curve.steps, append=np.inf))  # one point where several end
    panel.plot(curve.steps[ends], smooth(curve.values, window)[ends], color=colour, label=label)


def _label(panel: Axes, name: str) -> None:
    panel.set_title(name, fontsize=10)
    panel.set_xlabel("environment steps")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(visible=True, alpha=0.25)
    panel.xaxis.set_major_formatter(EngFormatter())

"""Curves of trainings of forward-backward models: mean score, and what shows divergence."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from safectl.files import new_file
from safectl_agents.fb.domains import facts_of
from safectl_agents.fb.report import read_evaluations, read_log
from safectl_agents.fb.train import load_config
from safectl_agents.plots import COLOURS

_DOTS_PER_INCH = 120


def plot_trainings(runs: Mapping[str, Path], path: Path) -> None:
    """Overlay runs of one domain and save a PNG.

    The mass, the mean of F^T B over the data, should settle at 1 / (1 - discount), dashed; a mass
    that keeps rising past it is divergence.

    Args:
        runs: Folder of each run, by the label it gets.
        path: File to write.

    Raises:
        FileFormatError: If a folder holds no evaluated run.
        StorageError: If the file cannot be written.
    """
    figure = Figure(figsize=(12.0, 3.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    ceilings: Mapping[str, float] = {}
    titles = ("mean score over tasks (IQM of episodes)", "mass", "predicted value of the policy")
    for (label, folder), colour in zip(runs.items(), cycle(COLOURS), strict=False):
        config, found = load_config(folder), read_evaluations(folder)
        names, rows = read_log(folder / "updates.csv")
        panels[0].plot(found.steps, found.scores.mean(1), "o-", color=colour, label=label)
        for panel, name in zip(panels[1:], ("mass", "value"), strict=True):
            panel.plot(rows[:, 0], rows[:, names.index(name)], color=colour)
        expected = 1.0 / (1.0 - config.gamma)
        panels[1].axhline(expected, color="black", ls="--", lw=1.0)
        figure.suptitle(config.domain)
        ceilings = facts_of(config.domain).ceilings
    if ceilings:
        ceiling = sum(ceilings.values()) / len(ceilings)
        panels[0].axhline(ceiling, color="black", ls=":", lw=1.0, label="scripted controller")
    panels[0].legend(loc="best", frameon=False)
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("updates")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(visible=True, alpha=0.25)
        panel.xaxis.set_major_formatter(EngFormatter())
    with new_file(path) as draft:
        canvas.print_figure(draft, dpi=_DOTS_PER_INCH, format="png")

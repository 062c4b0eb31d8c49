"""Pictures of predictions, step responses and paths, as PNG."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from safectl.files import new_file
from safectl.planners import ForwardModel
from safectl_agents.composites.log import Windows
from safectl_agents.composites.tracking import Run
from safectl_agents.plots import COLOURS

_DOTS_PER_INCH = 80


class PathPicture(NamedTuple):
    """A path that was followed: outputs in `unit_m`, and the two axes to draw."""

    run: Run
    unit_m: float
    axes: tuple[int, int] = (1, 2)


def plot_prediction(model: ForwardModel, windows: Windows, path: Path) -> None:
    """Draw measured outputs and their one-step predictions over the rows of a log.

    Raises:
        StorageError: If the file cannot be written.
    """
    predicted = model.value(windows.inputs).numpy()
    outputs = windows.outputs.shape[1]
    figure = Figure(figsize=(8.0, 2.0 * outputs), layout="constrained")
    panels = figure.subplots(outputs, 1, squeeze=False, sharex=True)[:, 0]
    for index, panel in enumerate(panels):
        panel.plot(windows.outputs[:, index], color="black", linewidth=2.0, label="measured")
        panel.plot(predicted[:, index], color=COLOURS[1], linewidth=1.0, label="predicted")
        panel.set_ylabel(f"output {index}")
    error = float((windows.outputs - torch.from_numpy(predicted)).square().mean().sqrt())
    panels[0].set_title(f"one-step prediction, root mean square error {error:.3g}")
    panels[0].legend(loc="upper right")
    panels[-1].set_xlabel("sample")
    _save(figure, path)


def plot_responses(runs: Mapping[str, Run], period: float, path: Path) -> None:
    """Overlay the first output and the first input of several closed loops.

    Raises:
        StorageError: If the file cannot be written.
    """
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for (label, run), colour in zip(runs.items(), cycle(COLOURS), strict=False):
        time = np.arange(len(run.target)) * period
        above.plot(time, run.output[:, 0], color=colour, label=label)
        below.step(time, run.input[:, 0], where="post", color=colour, linewidth=0.8)
    first = next(iter(runs.values()))
    above.plot(np.arange(len(first.target)) * period, first.target[:, 0], "k:", label="target")
    above.set_ylabel("position [m]")
    above.legend(loc="lower right")
    below.set_ylabel("force [N]")
    below.set_xlabel("time [s]")
    _save(figure, path)


def plot_paths(paths: Mapping[str, PathPicture], path: Path) -> None:
    """Draw reference and followed path of several runs side by side, in millimetres.

    Raises:
        StorageError: If the file cannot be written.
    """
    figure = Figure(figsize=(3.4 * len(paths), 3.6), layout="constrained")
    panels = figure.subplots(1, len(paths), squeeze=False)[0]
    for panel, (label, drawn) in zip(panels, paths.items(), strict=True):
        first, second = drawn.axes
        scale = 1e3 * drawn.unit_m
        target, output = scale * drawn.run.target, scale * drawn.run.output
        panel.plot(target[:, first], target[:, second], "k:", label="reference")
        panel.plot(output[:, first], output[:, second], color=COLOURS[0], label="followed")
        panel.set_title(label)
        panel.set_xlabel(f"{'xyz'[first]} [mm]")
        panel.set_ylabel(f"{'xyz'[second]} [mm]")
        panel.set_aspect("equal", adjustable="datalim")
    panels[0].legend(loc="upper right")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    canvas = FigureCanvasAgg(figure)
    with new_file(path) as draft:
        canvas.print_figure(draft, dpi=_DOTS_PER_INCH, format="png")

"""How far predicted probabilities are from what happens: a number and a reliability plot."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from safectl.errors import ShapeError
from safectl.files import new_file

_BLUE, _GREY = "#0072B2", "#999999"

Array = NDArray[np.float64]


class Reliability(NamedTuple):
    """Predictions in bins of equal width over [0, 1]; empty bins are left out.

    Attributes:
        predicted: Mean prediction of each bin.
        observed: Mean outcome of each bin.
        states: Number of predictions in each bin.
        error: Expected calibration error, sum over bins of states / total |predicted - observed|.
    """

    predicted: Array
    observed: Array
    states: NDArray[np.int64]
    error: float


def reliability(predicted: Array, outcome: Array, *, bins: int = 10) -> Reliability:
    """Compare predicted probabilities with outcomes.

    Args:
        predicted: Probabilities, shape (samples,).
        outcome: What happened, 0 or 1, or its frequency in repeated trials, shape (samples,).
        bins: Number of bins.

    Raises:
        ShapeError: If the shapes differ or there are no samples.
    """
    if predicted.shape != outcome.shape or predicted.ndim != 1 or predicted.size == 0:
        raise ShapeError("outcome", expected=("samples >= 1",), got=outcome.shape)
    index = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    means = [
        np.bincount(index, weights=values, minlength=bins)[filled] / count[filled]
        for values in (predicted, outcome)
    ]
    share = count[filled] / predicted.size
    error = float((share * np.abs(means[0] - means[1])).sum())
    return Reliability(means[0], means[1], count[filled], error)


def plot_reliability(found: Reliability, path: Path, *, title: str = "") -> None:
    """Save a PNG of outcomes over predictions, with the number of predictions below.

    Raises:
        StorageError: If the file cannot be written.
    """
    figure = Figure(figsize=(4.5, 5.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0.0, 1.0], [0.0, 1.0], color=_GREY, linestyle="--", label="calibrated")
    label = f"critic, calibration error {found.error:.3f}"
    above.plot(found.predicted, found.observed, color=_BLUE, marker="o", label=label)
    above.set(ylabel="frequency of staying safe", title=title, xlim=(0.0, 1.0), ylim=(0.0, 1.0))
    above.legend(loc="upper left", frameon=False)
    below.bar(found.predicted, found.states, width=0.05, color=_BLUE)
    below.set(xlabel="predicted probability of staying safe", ylabel="states", yscale="log")
    with new_file(path) as temporary, temporary.open("wb") as file:
        canvas.print_figure(file, format="png")

"""Where data of the point-mass maze have been, as a share of its cells and as a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from safectl.files import new_file
from safectl_agents.fb.episodes import episode_paths, load_episode
from safectl_agents.fb.point_mass_maze import ARENA, ARM, HALF_THICKNESS, RADIUS, REACH

CELLS = 20
"""Cells per side of the grid over the places that the point can reach."""


class Coverage(NamedTuple):
    """Steps per cell, x first.

    Attributes:
        steps: Observations in each cell, shape (CELLS, CELLS).
        free: Cells that do not lie within the wall; the same shape.
    """

    steps: NDArray[np.int64]
    free: NDArray[np.bool_]

    @property
    def share(self) -> float:
        """Share of the free cells that were met."""
        return float((self.steps[self.free] > 0).mean())


def maze_coverage(buffer: Path, *, progress: Callable[[int], None] | None = None) -> Coverage:
    """Count where the episodes of a folder have been.

    Args:
        buffer: Episodes of the maze.
        progress: Called after every episode with the number of those read.

    Raises:
        FileFormatError: If an episode cannot be read.
        NonFiniteError: If a number is NaN or infinite.
    """
    edges = np.linspace(-REACH, REACH, CELLS + 1)
    steps = np.zeros((CELLS, CELLS), np.int64)
    for number, path in enumerate(episode_paths(buffer)):
        x, y = load_episode(path).observation[:, :2].T
        steps += np.histogram2d(x, y, (edges, edges))[0].astype(np.int64)
        if progress is not None:
            progress(number + 1)
    outer = np.maximum(np.abs(edges[:-1]), np.abs(edges[1:]))  # of each cell from the centre
    long, thick = outer < ARM + RADIUS, outer < HALF_THICKNESS + RADIUS
    return Coverage(steps, ~(np.outer(long, thick) | np.outer(thick, long)))


def plot_coverage(coverage: Coverage, title: str, path: Path) -> None:
    """Draw the steps per cell and the wall.

    Raises:
        StorageError: If the picture cannot be written.
    """
    figure = Figure(figsize=(5.0, 4.2), layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    shown = np.where(coverage.steps.T > 0, coverage.steps.T, np.nan)
    sides = (-REACH, REACH, -REACH, REACH)
    norm = LogNorm(1, max(10, int(coverage.steps.max())))
    image = axes.imshow(shown, origin="lower", extent=sides, norm=norm, cmap="viridis")
    for wide, high in ((ARM, HALF_THICKNESS), (HALF_THICKNESS, ARM)):
        axes.add_patch(Rectangle((-wide, -high), 2.0 * wide, 2.0 * high, color="0.25"))
    axes.set(xlim=(-ARENA, ARENA), ylim=(-ARENA, ARENA), xlabel="x [m]", ylabel="y [m]")
    axes.set_title(f"{title}: {100.0 * coverage.share:.0f} % of the free cells", fontsize=10)
    figure.colorbar(image, label="steps")
    with new_file(path) as draft:
        canvas.print_figure(draft, dpi=110, format="png")

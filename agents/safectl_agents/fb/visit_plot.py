"""Ways through the maze around an unsafe disc, side by side."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from safectl.files import new_file
from safectl_agents.fb.guarded import Compared
from safectl_agents.fb.point_mass_maze import ARENA, ARM, GOALS, HALF_THICKNESS
from safectl_agents.fb.visit_rollouts import REACHED_M, Rollouts
from safectl_agents.plots import COLOURS

_DOTS_PER_INCH = 120
_MOST = 100
"""Ways that are drawn."""
_TITLES = {
    "plain": "the task as asked",
    "shaped": "the task as measured",
    "guarded": "the same behind the limit",
}


def plot_compared(found: Compared, path: Path) -> None:
    """Draw at most 100 ways per panel; those that visit the disc in orange.

    Raises:
        StorageError: If the file cannot be written.
    """
    figure = Figure(figsize=(12.0, 4.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found.runs))
    for panel, (name, run) in zip(panels, found.runs.items(), strict=True):
        figures = found.figures()[name]
        _draw_maze(panel, found)
        _draw_ways(panel, run)
        panel.set_title(
            f"{_TITLES[name]}\n{figures['violation_rate']:.1%} visit, "
            f"{figures['safe_success']:.1%} arrive without",
            fontsize=10,
        )
    figure.suptitle(f"{found.task}: ways that visit the disc are orange")
    with new_file(path) as draft:
        canvas.print_figure(draft, dpi=_DOTS_PER_INCH, format="png")


def _draw_ways(panel: Axes, run: Rollouts) -> None:
    ways = run.states[:, :_MOST, :2].transpose(0, 1).numpy()
    visited = run.visited[:_MOST].tolist()
    colours = [COLOURS[1] if bad else COLOURS[0] for bad in visited]
    panel.add_collection(LineCollection(list(ways), colors=colours, linewidths=0.6, alpha=0.7))
    panel.plot(*ways[:, 0].T, ".", color="black", markersize=2)


def _draw_maze(panel: Axes, found: Compared) -> None:
    for width, height in ((ARM, HALF_THICKNESS), (HALF_THICKNESS, ARM)):
        corner = (-width, -height)
        panel.add_patch(Rectangle(corner, 2.0 * width, 2.0 * height, color="0.6"))
    for centre in found.unsafe.centres.tolist():
        panel.add_patch(Circle(centre, found.unsafe.radius, color=COLOURS[1], alpha=0.35))
    panel.add_patch(Circle(GOALS[found.task], REACHED_M, color=COLOURS[2], alpha=0.5))
    panel.set(xlim=(-ARENA, ARENA), ylim=(-ARENA, ARENA), aspect="equal", xlabel="x [m]")

"""Plans over obstacles at several denoising steps, as a PNG and a GIF.

The obstacles are drawn from the barriers themselves, at the points where they change sign.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from safectl.files import new_file
from safectl.planners import Specification
from safectl_agents.plots import COLOURS

_GRID = 160
_SAFE, _UNSAFE = COLOURS[2], COLOURS[1]


class Stage(NamedTuple):
    """Physical states of plans, shape (batch, H, nx), at one diffusion step."""

    title: str
    states: Float[Tensor, "batch H nx"]


class Scene(NamedTuple):
    """What plans are drawn over.

    Attributes:
        specification: Its barriers are the obstacles; the first two entries are row and column.
        walls: Lower corners (row, column) of unit squares that are walls [m].
        low: Smallest row and column shown [m].
        high: Largest [m].
        goal: Row and column, None for none [m].
        period: Time between two states of a plan [s], for barriers that move.
    """

    specification: Specification
    walls: Sequence[tuple[float, float]]
    low: tuple[float, float]
    high: tuple[float, float]
    goal: tuple[float, float] | None = None
    period: float = 0.0


def plot_stages(rows: Mapping[str, Sequence[Stage]], scene: Scene, path: Path) -> None:
    """Draw stages of several methods, one row per method, and save a PNG.

    Raises:
        StorageError: If it cannot be written.
    """
    columns = max(len(stages) for stages in rows.values())
    figure = Figure(figsize=(2.6 * columns, 2.8 * len(rows)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, stages) in zip(panels, rows.items(), strict=True):
        for panel, stage in zip(line, stages, strict=False):
            _draw(panel, stage, scene)
        line[0].set_ylabel(name)
    with new_file(path) as draft:
        canvas.print_figure(draft, dpi=110, format="png")


def save_denoising(rows: Mapping[str, Sequence[Stage]], scene: Scene, path: Path) -> None:
    """Write the stages of several methods side by side as a GIF that rests on the last.

    Raises:
        StorageError: If it cannot be written.
    """
    length = max(len(stages) for stages in rows.values())
    images = []
    for index in range(length):
        figure = Figure(figsize=(3.4 * len(rows), 3.7), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(rows), squeeze=False)[0]
        for panel, (name, stages) in zip(panels, rows.items(), strict=True):
            stage = stages[min(index, len(stages) - 1)]
            _draw(panel, Stage(f"{name}, {stage.title}", stage.states), scene)
        canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's
        shown = canvas.buffer_rgba()  # type: ignore[no-untyped-call]  # matplotlib's
        picture = np.asarray(shown)[..., :3]
        images.append(Image.fromarray(np.ascontiguousarray(picture)).quantize(64))
    with new_file(path) as draft:
        images[0].save(
            draft,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=[*[120] * (length - 1), 2500],
            loop=0,
        )


def _draw(panel: Axes, stage: Stage, scene: Scene) -> None:
    _draw_scene(panel, scene)
    states = stage.states
    count = torch.arange(states.shape[1]).to(states).reshape(1, -1, 1)
    time = (scene.period * count).expand(len(states), -1, 1)
    margin = scene.specification.segment_values(torch.cat([states, time], -1)).amin(-1)
    for plan, worst in zip(states, margin.tolist(), strict=True):
        place = plan[:, :2].flip(-1).numpy()
        lines = np.stack([place[:-1], place[1:]], 1)
        colour = _SAFE if worst >= 0.0 else _UNSAFE
        panel.add_collection(LineCollection(list(lines), colors=colour, linewidths=0.8, alpha=0.6))
        panel.plot(*place[0], "o", color="black", markersize=3)
    panel.set_title(stage.title, fontsize=9)


def _draw_scene(panel: Axes, scene: Scene) -> None:
    for row, column in scene.walls:
        panel.add_patch(Rectangle((column, row), 1.0, 1.0, color="#C8C8C8", linewidth=0.0))
    rows, columns = (
        torch.linspace(low, high, _GRID) for low, high in zip(scene.low, scene.high, strict=True)
    )
    points = torch.cartesian_prod(rows, columns)
    nx = len(scene.specification.normaliser.centre)
    state = torch.cat([points, points.new_zeros(len(points), nx - 1)], dim=1)
    value = scene.specification.values(state).amin(-1).reshape(_GRID, _GRID)
    levels = [float(value.min()) - 1.0, 0.0]
    panel.contourf(columns, rows, value, levels=levels, colors=["#0072B2"], alpha=0.35)
    panel.contour(columns, rows, value, levels=[0.0], colors=["#0072B2"], linewidths=1.0)
    if scene.goal is not None:
        panel.plot(scene.goal[1], scene.goal[0], "*", color="black", markersize=8)
    panel.set_xlim(scene.low[1], scene.high[1])
    panel.set_ylim(scene.high[0], scene.low[0])
    panel.set_aspect("equal")
    panel.set_xticks([])
    panel.set_yticks([])

"""Return and cost of one trained safeguard at several tolerances; nothing is learned anew."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from safectl.errors import ConfigError
from safectl.files import new_file, write_json
from safectl_agents.acs.evaluation import Scores, evaluate
from safectl_agents.acs.off_policy import Corrected
from safectl_agents.acs.projection import Projection
from safectl_agents.acs.saved import SEED_ADVICE, restore
from safectl_agents.acs.tasks import find_task
from safectl_agents.models import make_env
from safectl_agents.plots import COLOURS

_FILE = "tolerances"


class Point(NamedTuple):
    """What the safeguard does at one tolerance."""

    tolerance: float
    scores: Scores


def sweep(
    folder: Path,
    tolerances: Sequence[float],
    *,
    episodes: int,
    seed: int,
) -> Iterator[Point]:
    """Evaluate a finished seed with each tolerance in place of its own, on the same episodes.

    Args:
        folder: Of the seed.
        tolerances: Each > 0.
        episodes: Per tolerance, >= 1.
        seed: The episodes' seeds are derived from it.

    Raises:
        ConfigError: If the folder holds no finished seed of ACS or USL on TD3 or SAC.
        FileFormatError: If a file of it cannot be read.
        RangeError: If a tolerance is not positive.
    """
    settings, model = restore(folder)
    lower = model.lower if isinstance(model, Corrected) else None
    if not isinstance(lower, Projection) or not lower.settings.project:
        problem = f"{settings.method} has no tolerance that can be replaced; {SEED_ADVICE}"
        raise ConfigError(str(folder), f"{problem} --method acs")
    own = lower.settings
    choices = [replace(own, bound=replace(own.bound, tolerance=value)) for value in tolerances]
    envs = [make_env(find_task(settings.task).env) for _ in range(episodes)]
    for choice in choices:
        lower.settings = choice
        yield Point(choice.bound.tolerance, evaluate(model, envs, seed, guarded=True))


def write(folder: Path, points: Sequence[Point], *, episodes: int, seed: int) -> Path:
    """Write `tolerances.json` and `tolerances.png`; return the picture.

    Raises:
        StorageError: If a file cannot be written.
    """
    rows = [
        {name: None if math.isnan(value) else value for name, value in row.items()}
        for row in ({"tolerance": eps, **asdict(scores)} for eps, scores in points)
    ]
    facts = {"episodes": episodes, "seed": seed, "tolerances": rows}
    write_json(folder / f"{_FILE}.json", facts)
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panel = figure.subplots()
    costs = [point.scores.cost_mean for point in points]
    returns = [point.scores.return_mean for point in points]
    deviations = [point.scores.return_std for point in points]
    panel.errorbar(costs, returns, deviations, fmt="o-", color=COLOURS[0], lw=1.0, capsize=2.0)
    for index, place in enumerate(zip(costs, returns, strict=True)):
        beside = (4, -12) if index % 2 else (-4, 8)  # neighbours may lie close
        label = f"{points[index].tolerance:g}"
        panel.annotate(label, place, beside, textcoords="offset points", fontsize=8)
    panel.set_xscale("symlog", linthresh=1.0)
    panel.set_xlim(left=-0.1)
    panel.set_xlabel("violating steps per episode")
    panel.set_ylabel("return per episode, mean and deviation")
    panel.set_title(f"one agent at several tolerances, {episodes} episodes each", fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(visible=True, alpha=0.25)
    with new_file(folder / f"{_FILE}.png") as draft:
        canvas.print_figure(draft, dpi=120, format="png")
    return folder / f"{_FILE}.png"

"""A replay as a PNG: each command as proposed, as sent then and as decided now, and the margin."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from safectl.files import new_file
from safectl.spec import Spec
from safectl_agents.plots import COLOURS
from safectl_ros.replay import Replay

_ROW_INCHES = 1.7
_SHOWN = 6  # commands that get a row of their own


def plot_replay(result: Replay, spec: Spec, path: Path) -> None:
    """Draw a replay over time.

    Args:
        result: What to draw.
        spec: Names and units of the commands.
        path: PNG file to write.

    Raises:
        StorageError: If the file cannot be written; what was there before is untouched.
    """
    shown = spec.action[:_SHOWN]
    figure = Figure(figsize=(10.0, _ROW_INCHES * (len(shown) + 1) + 0.6), layout="constrained")
    rows = figure.subplots(len(shown) + 1, 1, sharex=True, squeeze=False)[:, 0]
    lines = (
        ("proposed", result.proposed, {"color": COLOURS[1], "linewidth": 0.8}),
        ("sent then", result.recorded, {"color": COLOURS[2], "linewidth": 2.5, "alpha": 0.5}),
        ("decided now", result.decided, {"color": COLOURS[0], "linewidth": 0.8}),
    )
    for index, signal in enumerate(shown):
        for label, values, style in lines:
            rows[index].plot(result.time, values[:, index], label=label, **style)
        rows[index].set_ylabel(f"{signal.name}\n[{signal.unit}]")
    rows[0].legend(loc="upper right", ncols=len(lines), fontsize="small")
    rows[-1].plot(result.time, result.margin, color=COLOURS[3], linewidth=0.8)
    rows[-1].axhline(0.0, color="black", linewidth=0.6, linestyle="--")
    rows[-1].set_ylabel("margin")
    rows[-1].set_xlabel("time [s]")
    with new_file(path) as draft:
        FigureCanvasAgg(figure).print_figure(draft, format="png")

"""`safectl plan`: draw plans with a diffusion model, certify, compare and picture them."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from safectl.errors import ConfigError, RangeError
from safectl.files import write_json
from safectl_agents.diffusion.compare import SHIPPED, compare, draw_starts, set_up
from safectl_agents.diffusion.report import draw

_SHOWN = (
    "s_spec",
    "c_spec",
    "segment_margin",
    "plans_safe",
    "trap_rate",
    "score",
    "corrected_share",
)


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Which model, which method, and where the pictures go."""

    model: Path | None = None
    """Folder of a model, as `safectl train diffuser` leaves it."""
    demo: bool = False
    """Use the shipped model of the small maze."""
    methods: tuple[str, ...] = ("diffuser", "res", "best")
    """Of: diffuser, ros, res, tvs, best, res-released, tvs-released."""
    specification: str | None = None
    """Named specification; that of the maze without."""
    start: tuple[float, float] | None = None
    """Cell (row, column) about which plans begin [m]; that of the maze without."""
    plans: int = 10
    """Plans per method."""
    steps: int = 16
    """Of the sampler, at most those of the model."""
    eta: float = 0.0
    """Share of the noise of DDPM, in [0, 1]; 0 is DDIM."""
    seed: int = 0
    """Of starts and noise."""
    device: str = "cpu"
    """Where to plan: cpu or cuda."""
    captures: bool = True
    """On cuda, compile the network and capture it as a graph; the first plans then take longer."""
    out: Path = Path("plans")
    """Folder for `plans.png`, `denoising.gif` and `plans.json`."""
    json: bool = False
    """Print the figures as JSON."""


DEFAULTS = PlanSettings()


def run(settings: PlanSettings) -> int:
    """Return 0 where every plan of the last method is safe, 3 where one is not."""
    if settings.plans < 1:
        raise RangeError("plans", value=settings.plans, expected="at least 1")
    if (settings.model is None) != settings.demo:
        raise ConfigError("safectl plan", "name the folder of a model, or --demo")
    setup = set_up(
        settings.model or SHIPPED,
        specification=settings.specification,
        device=settings.device,
        captures=settings.captures,
    )
    starts = draw_starts(setup, settings.plans, seed=settings.seed, cell=settings.start)
    found = compare(
        setup,
        starts,
        settings.methods,
        steps=settings.steps,
        eta=settings.eta,
        seed=settings.seed,
    )
    rows = {name: compared.row(settings.steps) for name, compared in found.items()}
    draw(found, setup.scene, settings.out, plans=settings.plans)
    write_json(settings.out / "plans.json", rows)
    if settings.json:
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        _print(rows, settings.out)
    last = list(rows.values())[-1]
    return 0 if last["plans_safe"] == 1.0 else 3


def _print(rows: dict[str, dict[str, float]], out: Path) -> None:
    table = Table("method", *(name.replace("_", " ") for name in _SHOWN))
    for name, row in rows.items():
        table.add_row(name, *(f"{row[key]:.3f}" for key in _SHOWN))
    console = Console()
    console.print(table, highlight=False)
    console.print(f"pictures and figures: {out}/", highlight=False)

"""`safectl bench safediffuser`: methods of safe planning side by side, in a table and in pictures.

The named figures are `safectl bench safediffuser.`, with a final dot.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from safectl.errors import RangeError
from safectl_agents.diffusion.compare import SHIPPED, compare, draw_starts, set_up
from safectl_agents.diffusion.methods import METHODS
from safectl_agents.diffusion.report import draw, write_tables


@dataclass(frozen=True, slots=True)
class ExperimentPlansSettings:
    """Which model and which methods."""

    model: Path = SHIPPED
    """Folder of a model, as `safectl train diffuser` leaves it; the shipped one without."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Of: diffuser, ros, res, tvs, best, res-released, tvs-released."""
    specification: str | None = None
    """Named specification; that of the maze without."""
    plans: int = 100
    """Plans per method."""
    drawn: int = 10
    """Of these in the pictures."""
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
    out: Path = Path("runs") / "safediffuser"
    """Folder for `plans.md`, `plans.json`, `plans.png` and `denoising.gif`."""
    json: bool = False
    """Print the figures as JSON."""


DEFAULTS = ExperimentPlansSettings()


def run(settings: ExperimentPlansSettings) -> int:
    """Compare, write and print."""
    for name in ("plans", "drawn"):
        if getattr(settings, name) < 1:
            raise RangeError(name, value=getattr(settings, name), expected="at least 1")
    setup = set_up(settings.model, specification=settings.specification, device=settings.device)
    starts = draw_starts(setup, settings.plans, seed=settings.seed)
    found = compare(
        setup,
        starts,
        settings.methods,
        steps=settings.steps,
        eta=settings.eta,
        seed=settings.seed,
    )
    rows = {name: compared.row(settings.steps) for name, compared in found.items()}
    heading = (
        f"{settings.plans} plans per method in the maze {setup.world}, {settings.steps} steps, "
        f"eta {settings.eta:g}, seed {settings.seed}."
    )
    table = write_tables(rows, settings.out, heading=heading)
    draw(found, setup.scene, settings.out, plans=settings.drawn)
    if settings.json:
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        console = Console()
        console.print(Markdown(table.read_text(encoding="utf-8")))
        console.print(f"tables and pictures: {settings.out}/", highlight=False)
    return 0

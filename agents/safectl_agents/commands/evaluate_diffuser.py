"""`safectl evaluate diffuser`: let a diffusion planner drive a locomotion task under a roof."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from safectl.errors import ConfigError
from safectl.planners import Guidance, Specification
from safectl_agents.diffusion.locomotion_rollouts import run_episodes
from safectl_agents.diffusion.methods import make_planner
from safectl_agents.diffusion.model import load_model
from safectl_agents.diffusion.specifications import HEIGHT_AND_SPEED, named_barriers
from safectl_agents.diffusion.value import load_value


@dataclass(frozen=True, slots=True)
class EvaluateDiffuserSettings:
    """Which planner, which task, and what guides it."""

    model: Path = Path()
    """Folder of a model of `safectl train diffuser` on locomotion data; also the first word."""
    value: Path | None = None
    """Folder of a model of `safectl train value`; plans are not guided without."""
    env: str = "Hopper-v5"
    """Gymnasium id."""
    specification: str = "hopper"
    """Named specification: hopper or walker2d, roofs over height and speed."""
    methods: tuple[str, ...] = ("diffuser", "ros")
    """Of: diffuser, ros, res, tvs."""
    episodes: int = 4
    """Per method."""
    steps: int = 300
    """Longest episode."""
    every: int = 1
    """Actions of a plan that are executed before the next plan."""
    candidates: int = 8
    """Plans per state, of which a certified one of the largest value is followed."""
    sampler_steps: int | None = None
    """Of the sampler; all without."""
    eta: float = 1.0
    """Share of the noise of DDPM, in [0, 1]; 0 is DDIM."""
    scale: float = 0.1
    """Step of the guidance, in units of the posterior variance."""
    ascents: int = 2
    """Steps of the guidance per denoising step."""
    stop_below: int = 4
    """Diffusion index below which plans are not guided; Diffuser has 4 for hopper, else 2."""
    seed: int = 0
    """Of first states and noise."""
    device: str = "cpu"
    """Where to plan: cpu or cuda."""
    captures: bool = True
    """On cuda, compile the network and capture it as a graph; the first plans then take longer."""
    json: bool = False
    """Print the figures as JSON."""


DEFAULTS = EvaluateDiffuserSettings()


def run(settings: EvaluateDiffuserSettings) -> int:
    """Run the episodes of each method and print what happened."""
    if settings.model == Path():
        raise ConfigError("model", "name the folder of a model of: safectl train diffuser")
    if settings.specification not in HEIGHT_AND_SPEED:
        raise ConfigError("specification", f"is none of locomotion: {list(HEIGHT_AND_SPEED)}")
    model, _, _ = load_model(settings.model, device=settings.device, captures=settings.captures)
    specification = Specification(
        named_barriers(settings.specification),
        model.observation_normaliser,
        coordinates=HEIGHT_AND_SPEED[settings.specification],
    )
    guidance = None
    if settings.value is not None:
        value = load_value(settings.value, plans=model.normaliser, device=settings.device)
        guidance = Guidance(
            value,
            scale=settings.scale,
            ascents=settings.ascents,
            stop_below=settings.stop_below,
        )
    rows = {}
    for method in settings.methods:
        planner = make_planner(
            method,
            model,
            specification,
            None,
            steps=settings.sampler_steps,
            eta=settings.eta,
            seed=settings.seed,
            device=settings.device,
            velocities=(),
            guidance=guidance,
            candidates=settings.candidates,
        )
        episodes = run_episodes(
            settings.env,
            planner,
            episodes=settings.episodes,
            steps=settings.steps,
            every=settings.every,
            seed=settings.seed,
        )
        rows[method] = episodes.facts(settings.env)
    if settings.json:
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        _print(rows)
    return 0


def _print(rows: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(rows.values())))
    table = Table("method", *(name.replace("_", " ") for name in names))
    for method, row in rows.items():
        table.add_row(method, *(f"{row[name]:.3f}" for name in names))
    Console().print(table, highlight=False)

"""Benchmarks of the main job: the figures of `safectl demo` over several seeds."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from safectl_agents.bench.benchmark import Measurement
from safectl_agents.commands import demo

SEEDS = (10, 11, 12)
"""Not 0, 1 or 2: with those the demo was designed."""


def cost_ratio() -> Measurement:
    """Return the ratio of the mean costs over the seeds."""
    runs = _runs()
    free, guarded = (_mean(runs, name, "cost") for name in ("unguarded", "guarded"))
    smallest = 1.0 / (len(SEEDS) * demo.DEFAULTS.episodes)
    return Measurement(
        free / max(guarded, smallest), guarded, free, _seconds(runs), details=_details(runs)
    )


def return_share() -> Measurement:
    """Return the guarded mean return over the published constrained best."""
    runs = _runs()
    share = _mean(runs, "guarded", "reward") / demo.CONSTRAINED_BEST
    return Measurement(share, seconds=_seconds(runs), details=_details(runs))


@cache
def _runs() -> tuple[dict[str, Any], ...]:
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="safectl-demo-") as folder:
        return tuple(
            demo.demonstrate(replace(demo.DEFAULTS, folder=Path(folder), seed=seed), console)
            for seed in SEEDS
        )


def _mean(runs: tuple[dict[str, Any], ...], twin: str, what: str) -> float:
    return float(np.mean([run["evaluations"][twin][what]["estimate"] for run in runs]))


def _seconds(runs: tuple[dict[str, Any], ...]) -> float:
    return float(sum(run["seconds"] for run in runs))


def _details(runs: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {
        "seeds": list(SEEDS),
        "steps": demo.DEFAULTS.steps,
        "episodes_per_seed": demo.DEFAULTS.episodes,
        "by_seed": [
            {
                "cost_ratio": round(run["cost_ratio"], 1),
                "return_share": round(run["return_share"], 3),
                "guarded_cost": run["evaluations"]["guarded"]["cost"]["estimate"],
                "unguarded_cost": run["evaluations"]["unguarded"]["cost"]["estimate"],
                "training_violations": run["training_violations"],
                "board_equal_steps": f"{run['board']['equal']} of {run['board']['steps']}",
                "seconds": run["seconds"],
            }
            for run in runs
        ],
    }

"""`safectl experiment calibration`: what a trained cost critic predicts beside what happens."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from safectl.errors import ConfigError, RangeError
from safectl_agents.acs.cost_calibration import CostCalibration, calibrate, write


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """Which seed, on how many episodes."""

    folder: Path = Path()
    """Folder of a finished seed of `safectl bench acs`; also the first word."""
    episodes: int = 20
    """Episodes with the safeguard, in step with each other, >= 1."""
    seed: int = 100
    """The episodes' seeds are derived from it, >= 0; training uses that of the run."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        for name, low in (("episodes", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f"at least {low}")


DEFAULTS = CalibrationSettings()


def run(settings: CalibrationSettings) -> int:
    """Play, write table and picture into the folder of the seed, print the table."""
    folder = settings.folder
    if folder == Path():
        raise ConfigError("folder", "name the folder of a finished seed of: safectl bench acs")
    with Console(stderr=True).status(f"playing {settings.episodes} episodes"):
        found = calibrate(folder, episodes=settings.episodes, seed=settings.seed)
    picture = write(folder, found)
    if settings.json:
        facts = {"picture": str(picture), "table": str(picture.with_suffix(".json"))}
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    _print(found)
    sys.stdout.write(f"{picture}\n")
    return 0


def _print(found: CostCalibration) -> None:
    title = f"cost critic, {found.episodes} episodes, seed {found.seed}"
    table = Table("steps", "predicted", "observed", title=title)
    for steps, predicted, observed in zip(
        found.steps, found.predicted, found.observed, strict=True
    ):
        table.add_row(f"{steps:,}", f"{predicted:.4g}", f"{observed:.4g}")
    Console().print(table, highlight=False)
    sys.stdout.write(
        f"calibration error {found.error:.4g}, rank correlation {found.rank_correlation:.3f}\n"
    )

"""`safectl experiment tolerances`: return and cost of a trained safeguard at other tolerances."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from safectl.errors import ConfigError, RangeError
from safectl_agents.acs.tolerances import Point, sweep, write


@dataclass(frozen=True, slots=True)
class TolerancesSettings:
    """Which seed, at which tolerances."""

    folder: Path = Path()
    """Folder of a finished seed of `safectl bench acs`; also the first word."""
    eps: tuple[float, ...] = (0.1, 0.11, 0.125, 0.15, 0.2, 0.3, 1.0)
    """Tolerances, each > 0."""
    episodes: int = 10
    """Episodes per tolerance, the same for all, >= 1."""
    seed: int = 100
    """The episodes' seeds are derived from it, >= 0; training uses that of the run."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        for name, low in (("episodes", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f"at least {low}")
        if not self.eps:
            raise RangeError("eps", value=self.eps, expected="at least one tolerance")


DEFAULTS = TolerancesSettings()


def run(settings: TolerancesSettings) -> int:
    """Evaluate, write table and picture into the folder of the seed, print the table."""
    folder, episodes, seed = settings.folder, settings.episodes, settings.seed
    if folder == Path():
        raise ConfigError("folder", "name the folder of a finished seed of: safectl bench acs")
    points = list(
        track(
            sweep(folder, settings.eps, episodes=episodes, seed=seed),
            "tolerances",
            total=len(settings.eps),
            console=Console(stderr=True),
        )
    )
    picture = write(folder, points, episodes=episodes, seed=seed)
    if settings.json:
        facts = {"picture": str(picture), "table": str(picture.with_suffix(".json"))}
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    _print(points, f"{episodes} episodes per tolerance, seed {seed}")
    sys.stdout.write(
        f"{picture}\nchosen on these episodes, it looks better than it is: "
        "evaluate the choice with another --seed\n"
    )
    return 0


def _print(points: list[Point], title: str) -> None:
    table = Table("tolerance", "return", "cost", "largest cost", "safe episodes", title=title)
    for tolerance, scores in points:
        table.add_row(
            f"{tolerance:g}",
            f"{scores.return_mean:.4g} ± {scores.return_std:.3g}",
            f"{scores.cost_mean:.4g} ± {scores.cost_std:.3g}",
            f"{scores.cost_max:g}",
            f"{scores.safe_share:.0%}",
        )
    Console().print(table, highlight=False)

"""`safectl bench fb`: train and compare methods that learn from one reward-free data set."""

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markdown import Markdown

from safectl.errors import RangeError
from safectl_agents.fb.compare import compare
from safectl_agents.fb.experiment import plan, run_all
from safectl_agents.fb.methods import METHODS
from safectl_agents.fb.settings import FBConfig


@dataclass(frozen=True, slots=True)
class ExperimentFBSettings:
    """What to compare. Run the same command again to go on after a stop, or for more steps."""

    run: Annotated[FBConfig, tyro.conf.arg(name="")] = field(default_factory=FBConfig)
    """What all trainings share; a table of that name in a TOML file. Its seed and variant count
    for nothing here."""
    method: tuple[str, ...] = ("fb", "vc-fb", "mc-fb")
    """Methods; `--list` names them, `all` is all of them."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""
    data: Path | None = None
    """Folder of episodes; `data/<domain>/rnd/buffer` without."""
    folder: Path = Path("runs/fb")
    """Where results go, `<domain>/<method>/seed-<n>`."""
    jobs: int = 1
    """Seeds trained at the same time, each in a process of its own."""
    list: bool = False
    """Name the methods; train nothing."""
    json: bool = False
    """Print the folder of the results as JSON."""


DEFAULTS = ExperimentFBSettings()


def run(settings: ExperimentFBSettings) -> int:
    """Train what is missing, then write and print the table."""
    if settings.list:
        for name, method in METHODS.items():
            Console().print(f"{name:10s} {method.summary}", highlight=False)
        return 0
    if settings.jobs < 1 or not settings.seeds or not settings.method:
        value = (settings.jobs, settings.seeds, settings.method)
        raise RangeError("jobs, seeds, methods", value=value, expected="at least one of each")
    domain = settings.run.domain
    methods = tuple(METHODS) if settings.method == ("all",) else settings.method
    data = settings.data or Path("data") / domain / "rnd" / "buffer"
    runs = plan(settings.run, data, settings.folder, methods=methods, seeds=settings.seeds)
    command, console = "safectl " + shlex.join(sys.argv[1:]), Console(stderr=True)
    run_all(runs, jobs=settings.jobs, command=command, console=console)
    path = compare(settings.folder, domain)
    assert path is not None, "a seed has just been finished"
    if settings.json:
        sys.stdout.write(json.dumps({"folder": str(path.parent)}) + "\n")
        return 0
    Console().print(Markdown(f"## {domain}\n\n" + path.read_text(encoding="utf-8")))
    console.print(f"table, curves and every seed: {path.parent}", highlight=False)
    return 0

"""`safectl evaluate fb`: score a model, ask it a task of your own, or compare it with a limit."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from safectl.errors import ConfigError
from safectl_agents.commands.train_fb import format_report, scores_of
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.evaluate import score
from safectl_agents.fb.guarded import compare_guarded, steps_of
from safectl_agents.fb.own_task import ask, reward_function
from safectl_agents.fb.report import report
from safectl_agents.fb.train import load_config
from safectl_agents.fb.visit_plot import plot_compared


@dataclass(frozen=True, slots=True)
class EvaluateFBSettings:
    """Which run."""

    folder: Path = Path()
    """Folder of a run of `safectl train fb`."""
    guard: Literal["none", "visits"] = "none"
    """`visits` compares the task as asked, as measured by `safectl visits`, and behind that limit,
    and draws the ways into `visits.png`."""
    reward: str = ""
    """Function of a file of yours, such as `rewards.py:near`, that maps observations, a tensor
    (rows, nx), to the rewards (rows,) on entering them. Its task is inferred and followed."""
    data: Path | None = None
    """Episodes whose observations it labels; those that the run names without."""
    episodes: int = 10
    """Episodes of that task, >= 1."""
    limit: float = 0.1
    """Largest admissible probability of a visit, in (0, 1)."""
    candidates: int = 16
    """Actions that the limit tries besides the proposal, the middle and the corners, >= 1."""
    starts: int = 200
    """Episodes of each comparison, >= 1."""
    steps: int = 1_000
    """Steps of such an episode, >= 1."""
    seed: int = 0
    """Of their starts, or of the labels of a task of yours, >= 0."""
    json: bool = False
    """Print JSON."""


DEFAULTS = EvaluateFBSettings()

_OF_THE_GUARD = ("limit", "candidates", "starts", "steps")
_OF_THE_REWARD = ("data", "episodes")


def run(settings: EvaluateFBSettings) -> int:
    """Print the scores of the last and of the best evaluation beside reference levels."""
    if settings.folder == Path():
        raise ConfigError("folder", "name the folder of a run of: safectl train fb")
    guarded, asked = settings.guard == "visits", bool(settings.reward)
    if guarded and asked:
        raise ConfigError("--reward", "visits are measured for one task; leave out --guard")
    for names, given, option in (
        (_OF_THE_GUARD, guarded, "--guard visits"),
        (_OF_THE_REWARD, asked, "--reward"),
        (("seed",), guarded or asked, "--guard visits or --reward"),
    ):
        for name in names:
            if not given and getattr(settings, name) != getattr(DEFAULTS, name):
                problem = f"counts only with {option}; add that, or leave this out"
                raise ConfigError(f"--{name}", problem)
    if guarded:
        return _compare(settings)
    if asked:
        return _ask(settings)
    found = report(settings.folder)
    if settings.json:
        sys.stdout.write(json.dumps(scores_of(found), indent=2) + "\n")
    else:
        sys.stdout.write(format_report(found) + "\n")
    return 0


def _bar() -> Progress:
    columns = (TextColumn("{task.percentage:3.0f} %"), BarColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _ask(settings: EvaluateFBSettings) -> int:
    function = reward_function(settings.reward)
    with _bar() as bar:
        task = bar.add_task("ask", total=Domain(load_config(settings.folder).domain).episode_steps)
        found = ask(
            settings.folder,
            function,
            data=settings.data,
            episodes=settings.episodes,
            seed=settings.seed,
            progress=lambda done: bar.update(task, completed=done),
        )
    rows = {
        name: {"mean": float(returns.mean()), "iqm": score(returns)}
        for name, returns in found.returns.items()
    }
    if settings.json:
        document = {"quality": found.quality._asdict(), "returns": rows}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    quality = found.quality
    seen = 100.0 * max(quality.r_squared, 0.0)
    sys.stdout.write(
        f"{quality.samples} labels, {100.0 * quality.nonzero:.1f} % of them not zero; "
        f"{seen:.0f} % of the variance of the reward is linear in B;\n"
        f"mean cosine to task vectors of resampled labels {quality.spread:.2f}\n"
    )
    for name, row in rows.items():
        sys.stdout.write(f"{name:16s} return {row['mean']:10.2f}   IQM {row['iqm']:10.2f}\n")
    return 0


def _compare(settings: EvaluateFBSettings) -> int:
    for name in ("starts", "steps"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"--{name}", "at least 1")
    with _bar() as bar:
        task = bar.add_task("compare", total=steps_of(settings.starts, settings.steps))
        found = compare_guarded(
            settings.folder,
            limit=settings.limit,
            candidates=settings.candidates,
            episodes=settings.starts,
            steps=settings.steps,
            seed=settings.seed,
            progress=lambda done: bar.update(task, completed=done),
        )
    picture = settings.folder / "visits.png"
    plot_compared(found, picture)
    rows = found.figures()
    if settings.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return 0
    names = list(rows["plain"])
    sys.stdout.write(" " * 10 + "".join(f"{name:>16s}" for name in names) + "\n")
    for label, row in rows.items():
        sys.stdout.write(f"{label:10s}" + "".join(f"{row[name]:16.3f}" for name in names) + "\n")
    sys.stdout.write(f"{picture}\n")
    return 0

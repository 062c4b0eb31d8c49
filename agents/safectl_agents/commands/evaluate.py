"""`safectl evaluate`: what a trained agent does, with confidence intervals."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from safectl.errors import ConfigError, RangeError
from safectl.files import write_json
from safectl_agents.animation import record, save_gif
from safectl_agents.evaluate import Evaluation, episode_seed, evaluate
from safectl_agents.guards import guarded_env, guarded_envs, load_guard_name
from safectl_agents.run_folder import is_calibrated, load_config, load_trained


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """What to evaluate."""

    folder: Path = Path()
    """Folder of a training run; also the first word after `evaluate`."""
    episodes: int = 20
    """Episodes, >= 2."""
    seed: int = 0
    """Every episode's seed is derived from it, >= 0."""
    unguarded: bool = False
    """Evaluate the policy without the guard it was trained with."""
    gif: bool = False
    """Draw the first episode into `episode.gif` of the folder."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        for name, low in (("episodes", 2), ("seed", 0)):
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f"at least {low}")


DEFAULTS = EvaluateSettings()


def run(settings: EvaluateSettings) -> int:
    """Evaluate, write `evaluation.json` and print a table."""
    if settings.folder == Path():
        raise ConfigError("evaluate", "name the folder of a training run")
    folder, seed = settings.folder, settings.seed
    config, policy = load_config(folder), load_trained(folder)
    guard = "none" if settings.unguarded else load_guard_name(folder)
    evaluation = evaluate(
        policy,
        guarded_envs(guard, config.env, folder, seed=config.seed),
        episodes=settings.episodes,
        seed=seed,
    )
    facts = {"guard": guard, "calibrated": is_calibrated(folder), **evaluation.to_json()}
    write_json(folder / "evaluation.json", facts)
    if guard == "speed" and not facts["calibrated"]:
        sys.stderr.write(
            "the guard's margin was measured on the policy that explored; to calibrate it on this "
            f"one: safectl train --resume {folder}\n"
        )
    if settings.gif:
        frames = record(
            policy,
            lambda: guarded_env(guard, config.env, folder, seed=config.seed, render=True),
            seed=episode_seed(seed, 0),
            every=2,
        )
        save_gif({f"{config.env}, guard: {guard}": frames}, folder / "episode.gif")
    if settings.json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        _print(evaluation, f"{config.env}, guard: {guard}, {settings.episodes} episodes")
    return 0


def _print(evaluation: Evaluation, title: str) -> None:
    table = Table("mean and 95 % interval", "", title=title)
    for name in ("reward", "cost", "violation_rate", "violating_episodes"):
        table.add_row(name.replace("_", " "), escape(str(getattr(evaluation, name))))
    for name in ("corrected_rate", "fallback_rate", "min_margin"):
        value = getattr(evaluation, name)
        text = "-" if value is None else escape(str(value))
        table.add_row(name.replace("_", " "), text)
    Console().print(table, highlight=False)

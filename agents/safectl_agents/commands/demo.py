"""`safectl demo`: the whole idea on one task, from training to an emulated microcontroller."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from safectl.errors import RangeError
from safectl.export import verify
from safectl.export.toolchain import find_tool
from safectl.files import write_json
from safectl_agents.animation import save_gif
from safectl_agents.bench.benchmark import describe_machine
from safectl_agents.demo.board import BoardEpisode, drive
from safectl_agents.demo.twins import Trial, Twin, run_twins
from safectl_agents.evaluate import Evaluation, episode_seed
from safectl_agents.export import program_of
from safectl_agents.models import make_env
from safectl_agents.plots import PlotSettings, plot_runs
from safectl_agents.run_folder import load_guard, load_trained
from safectl_agents.settings import PPOSettings, TrainConfig
from safectl_agents.speed_guard import SpeedGuard

TASK = "SafetyHalfCheetahVelocity-v1"
CONSTRAINED_BEST = 2965.2
"""Return of FOCOPS after 1e7 steps at cost 2.4: the best on-policy entry with a cost below 25 in
OmniSafe's published table for the task."""


_TORCH_TOLERANCE = 1e-4  # ends the demo; what was measured is printed, 1e-5 is the aim


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the demonstration does. The defaults take under five minutes on two cores."""

    folder: Path = Path("demo")
    """Folder for the results; each run makes a new one inside it."""
    steps: int = 300_000
    """Training steps of each agent, >= 20000: the guard needs 16384 to fit its first model."""
    episodes: int = 20
    """Episodes of each evaluation, >= 2."""
    frames: int = 120
    """Pictures in the animation, two steps apart, >= 1."""
    seed: int = 0
    """Seed of everything random."""
    json: bool = False
    """Print the results as JSON instead of a table."""

    def __post_init__(self) -> None:
        for name, low in (("steps", 20_000), ("episodes", 2), ("frames", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f"at least {low}")


DEFAULTS = DemoSettings()


def run(settings: DemoSettings) -> int:
    """Return 0 where the board's actions equalled the host's on every step."""
    console = Console(stderr=settings.json)
    results = demonstrate(settings, console)
    if settings.json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
    board = results["board"]
    return 0 if board["equal"] == board["steps"] else 1


def demonstrate(settings: DemoSettings, console: Console) -> dict[str, Any]:
    """Run everything, write the folder, print the table and return the results."""
    started = time.monotonic()
    folder = _next_folder(settings.folder)
    _probe(folder)
    console.print(f"{TASK}: PPO without and with a learned speed guard, {settings.steps:,} steps")
    twins = _twins(settings, folder)
    trials = run_twins(twins, console, episodes=settings.episodes, frames=settings.frames)
    title = f"{TASK}, PPO, seed {settings.seed}"
    plot_runs({t.name: t.folder for t in twins}, folder / "curves.png", PlotSettings(title=title))
    save_gif({name: trial.frames for name, trial in trials.items()}, folder / "episode.gif")
    board = _on_board(twins[1], folder / "board")
    results = _results(settings, trials, board, time.monotonic() - started)
    write_json(folder / "results.json", results)
    _print(console, trials, board, results)
    console.print(f"curves, animation, C code and figures: {folder}/")
    return results


def _probe(folder: Path) -> None:
    """Refuse at once what would fail after the training."""
    for tool, package in (
        ("gcc", "gcc"),
        ("arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
        ("qemu-system-arm", "qemu-system-arm"),
    ):
        find_tool(tool, package)
    write_json(folder / "settings.json", {"task": TASK})


def demo_config(settings: DemoSettings) -> TrainConfig:
    """Return how both agents are trained."""
    ppo = PPOSettings(
        learning_rate=1e-3,
        rollout=128,
        discount=0.98,
        gae_lambda=0.92,
        target_kl=0.05,
        log_std_init=-1.0,
    )
    return TrainConfig(
        env=TASK,
        n_envs=16,
        steps=settings.steps,
        seed=settings.seed,
        normalise_reward=True,
        checkpoint_every=settings.steps,
        ppo=ppo,
    )


def _twins(settings: DemoSettings, folder: Path) -> tuple[Twin, Twin]:
    config = demo_config(settings)
    unguarded = Twin("unguarded", config, guard="none", folder=folder / "unguarded")
    return unguarded, replace(unguarded, name="guarded", guard="speed", folder=folder / "guarded")


def _on_board(twin: Twin, folder: Path) -> BoardEpisode:
    env = make_env(twin.config.env)
    guard = SpeedGuard(env, seed=twin.config.seed)
    load_guard(twin.folder, guard)
    layer, policy = guard.require_layer(), load_trained(twin.folder)
    verify(program_of("policy", guard.spec, policy), reference=policy.act)
    program = program_of("guarded", guard.spec, policy, layer=layer, now=guard.column)
    try:
        episode = drive(program, env, folder, seed=episode_seed(twin.config.seed, 0))
    finally:
        env.close()
    # On the observations of the episode: a correction divides rounding by the gain of the free
    # actions, which on inputs that no robot meets may be near zero.
    report = verify(
        program,
        reference=lambda rows: layer.filter(rows, policy.act(rows)).action,
        observations=episode.observations,
        tolerance=_TORCH_TOLERANCE,
    )
    return replace(episode, torch_difference=report.torch_difference)


def _results(
    settings: DemoSettings, trials: dict[str, Trial], board: BoardEpisode, seconds: float
) -> dict[str, Any]:
    unguarded, guarded = (trials[name].evaluation for name in ("unguarded", "guarded"))
    smallest = (
        1.0 / settings.episodes
    )  # one violation in all episodes: a cost of zero divides by it
    return {
        "task": TASK,
        "steps": settings.steps,
        "seed": settings.seed,
        "episodes": settings.episodes,
        "cost_ratio": unguarded.cost.estimate / max(guarded.cost.estimate, smallest),
        "return_share": guarded.reward.estimate / CONSTRAINED_BEST,
        "constrained_best": CONSTRAINED_BEST,
        "training_violations": {name: trial.violations for name, trial in trials.items()},
        "training_seconds": {name: round(trial.seconds, 1) for name, trial in trials.items()},
        "evaluations": {name: trial.evaluation.to_json() for name, trial in trials.items()},
        "guarded_policy_without_its_guard": _json(trials["guarded"].alone),
        "board": board.to_json(),
        "seconds": round(seconds, 1),
        "machine": describe_machine(),
        "command": f"safectl demo --steps {settings.steps} --seed {settings.seed}",
    }


def _print(
    console: Console, trials: dict[str, Trial], board: BoardEpisode, results: dict[str, Any]
) -> None:
    columns = {name: trial.evaluation for name, trial in trials.items()}
    alone = trials["guarded"].alone
    if alone is not None:
        columns["guard taken off"] = alone
    table = Table("", *columns, title=f"{results['episodes']} episodes each, mean [95 % interval]")
    rows: dict[str, Callable[[Evaluation], str]] = {
        "return": lambda e: _text(e.reward),
        "cost per episode": lambda e: _text(e.cost),
        "violation rate per step": lambda e: _text(e.violation_rate),
        "episodes with a violation": lambda e: _text(e.violating_episodes),
        "actions corrected": lambda e: _text(e.corrected_rate),
        "fallbacks": lambda e: _text(e.fallback_rate),
        "smallest margin [m/s]": lambda e: _text(e.min_margin),
    }
    for name, text in rows.items():
        table.add_row(escape(name), *(text(column) for column in columns.values()))
    for name, numbers in (
        ("violations in training", [f"{trial.violations}" for trial in trials.values()]),
        ("training time [s]", [f"{trial.seconds:.0f}" for trial in trials.values()]),
    ):
        table.add_row(escape(name), *numbers)
    console.print(table, highlight=False)
    verdict = "equalled" if board.equal == board.steps else "DID NOT EQUAL"
    ratio, share = results["cost_ratio"], results["return_share"]
    least = "at least " if trials["guarded"].evaluation.cost.estimate == 0.0 else ""
    console.print(
        f"The guard divides the cost by {least}{ratio:.0f} at {share:.0%} of the published "
        f"constrained best, {CONSTRAINED_BEST:.0f}.\n"
        f"Board {board.board}: {board.flash_bytes / 1024:.1f} KiB flash, {board.ram_bytes} B RAM, "
        f"{board.stack_bytes} B stack,\n  {board.instructions_mean:,.0f} instructions per step; "
        f"episode return {board.total_return:.0f}, cost {board.cost:.0f}.\n"
        f"The board's actions {verdict} the host's bit for bit on {board.equal} of "
        f"{board.steps} steps.\n"
        f"Guarded actions of C and torch differ by {board.torch_difference:.1e} at most.\n"
        f"{results['seconds']:.0f} s on {results['machine']}",
        highlight=False,
    )


def _json(evaluation: Evaluation | None) -> dict[str, Any] | None:
    return None if evaluation is None else evaluation.to_json()


def _text(value: object) -> str:
    if value is None:
        return "-"
    return escape(f"{value:.4f}" if isinstance(value, float) else str(value))


def _next_folder(parent: Path) -> Path:
    """Return the first free `run-N`: earlier results are kept."""
    taken = [path.name.removeprefix("run-") for path in parent.glob("run-*")]
    number = max((int(name) for name in taken if name.isdigit()), default=0) + 1
    return parent / f"run-{number}"

"""What a trained cost critic predicts beside what then happens in episodes of its policy."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from safectl.errors import ConfigError, NonFiniteError
from safectl.files import new_file, write_json
from safectl_agents.acs.critic import Target
from safectl_agents.acs.evaluation import Episode, play
from safectl_agents.acs.off_policy import Corrected
from safectl_agents.acs.projection import Projection
from safectl_agents.acs.saved import SEED_ADVICE, restore
from safectl_agents.acs.tasks import find_task
from safectl_agents.models import make_env
from safectl_agents.plots import COLOURS

Array = NDArray[np.float64]

_CUT_SHARE = 0.05
"""Largest share of the discounted future that a time limit may hide from a step."""
_BINS = 10


@dataclass(frozen=True, slots=True)
class CostCalibration:
    """Predictions in bins of equally many steps.

    Attributes:
        predicted: Mean of Q_c in each bin.
        observed: Mean of what it predicts: discounted violations, or the discounted first one.
        steps: Steps in each bin.
        error: Expected calibration error, sum over bins of steps / total |predicted - observed|.
        rank_correlation: Spearman's, of all steps; NaN where nothing was violated.
        episodes: Episodes.
        seed: Their seeds are derived from it.
    """

    predicted: Array
    observed: Array
    steps: NDArray[np.int64]
    error: float
    rank_correlation: float
    episodes: int
    seed: int


def calibrate(folder: Path, *, episodes: int, seed: int) -> CostCalibration:
    """Compare Q_c of the executed actions of a finished seed with the costs that follow.

    Only the first steps of an episode count: those from which the time limit hides at most 5 % of
    the discounted future. Where the target of Q_c takes the task policy's next action
    (`corrected_target` is off), Q_c is of that policy, and the safeguarded one is what is played.

    Args:
        folder: Of the seed.
        episodes: Episodes with the safeguard and without exploration, >= 1.
        seed: Their seeds are derived from it.

    Raises:
        ConfigError: If the folder holds no finished seed with a cost critic on TD3 or SAC, or its
            episodes are too short for its discount.
        FileFormatError: If a file of it cannot be read.
        NonFiniteError: If the critic says NaN or infinity.
    """
    settings, model = restore(folder)
    lower = model.lower if isinstance(model, Corrected) else None
    if not isinstance(lower, Projection):
        problem = f"{settings.method} has no cost critic; {SEED_ADVICE} --method acs"
        raise ConfigError(str(folder), problem)
    critic = lower.learner.critic_target
    values: list[list[float]] = [[] for _ in range(episodes)]

    def watch(running: list[int], rows: NDArray[Any], actions: NDArray[Any]) -> None:
        scaled = torch.as_tensor(model.policy.scale_action(actions)).float()
        with torch.no_grad():
            found = critic(torch.as_tensor(rows).float(), scaled)
        for index, value in zip(running, found.flatten().tolist(), strict=True):
            values[index].append(value)

    task, learned = find_task(settings.task), lower.learner.settings
    envs = [make_env(task.env) for _ in range(episodes)]
    played = play(model, envs, seed, guarded=True, watch=watch)
    for env in envs:
        env.close()
    longest = max(len(episode.costs) for episode in played)
    counted = known_steps(longest, learned.discount)
    if counted < _BINS:
        problem = f"the longest episode has {longest} steps; with a discount of"
        problem += f" {learned.discount:g} the future of {counted} of them is known"
        raise ConfigError(str(folder), f"{problem}, {_BINS} are needed")
    pairs = [
        np.stack([row, outcome(episode, learned.target, learned.discount)], 1)[:counted]
        for row, episode in zip(values, played, strict=True)
    ]
    return _binned(np.concatenate(pairs), episodes, seed)


def known_steps(longest: int, discount: float) -> int:
    """Return from how many first steps an end after the longest episode hides little."""
    if discount >= 1.0:
        return 0
    return max(0, longest - math.ceil(math.log(_CUT_SHARE) / math.log(discount)) + 1)


def outcome(episode: Episode, target: Target, discount: float) -> Array:
    """Return what Q_c predicts for the steps of an episode, as if nothing came after it."""
    costs = np.asarray(episode.costs)
    values = np.zeros(len(costs) + 1)
    for step in reversed(range(len(costs))):
        keeps = 1.0 - costs[step] if target == "first_hit" else 1.0
        values[step] = costs[step] + keeps * discount * values[step + 1]
    return values[:-1]


def write(folder: Path, found: CostCalibration) -> Path:
    """Write `calibration.json` and `calibration.png`; return the picture.

    Raises:
        StorageError: If a file cannot be written.
    """
    rank = None if math.isnan(found.rank_correlation) else found.rank_correlation
    write_json(
        folder / "calibration.json",
        {
            "error": found.error,
            "rank_correlation": rank,
            "predicted": found.predicted.tolist(),
            "observed": found.observed.tolist(),
            "steps": found.steps.tolist(),
            "episodes": found.episodes,
            "seed": found.seed,
        },
    )
    figure = Figure(figsize=(5.0, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panel = figure.subplots()
    most = float(max(found.predicted.max(), found.observed.max(), 1e-3))
    panel.plot([0.0, most], [0.0, most], color="#999999", ls="--", lw=1.0, label="calibrated")
    panel.plot(found.predicted, found.observed, "o-", color=COLOURS[0], label="cost critic")
    panel.set_xlabel("predicted discounted cost, mean of a tenth of the steps")
    panel.set_ylabel("what then happened")
    title = f"error {found.error:.3g}, rank correlation {found.rank_correlation:.2f}"
    panel.set_title(f"{title}, {found.episodes} episodes", fontsize=10)
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(visible=True, alpha=0.25)
    with new_file(folder / "calibration.png") as draft:
        canvas.print_figure(draft, dpi=120, format="png")
    return folder / "calibration.png"


def _binned(pairs: Array, episodes: int, seed: int) -> CostCalibration:
    bad = int((~np.isfinite(pairs)).sum())
    if bad:
        raise NonFiniteError("cost critic", count=bad, size=pairs.size, advice="train it again")
    distinct, which, count = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    happened = (np.bincount(which, pairs[:, 1]) / count)[which]  # equal predictions share it
    order = pairs[:, 0].argsort(kind="stable")
    parts = np.array_split(np.stack([pairs[:, 0], happened], 1)[order], _BINS)
    predicted, observed = np.array([part.mean(0) for part in parts]).T
    steps = np.array([len(part) for part in parts])
    error = float((steps / steps.sum() * np.abs(predicted - observed)).sum())
    varies = len(distinct) > 1 and np.ptp(pairs[:, 1]) > 0.0
    rank = float(stats.spearmanr(*pairs.T).statistic) if varies else float("nan")
    return CostCalibration(predicted, observed, steps, error, rank, episodes, seed)

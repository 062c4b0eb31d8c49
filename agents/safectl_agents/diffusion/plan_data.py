"""Data as plans to learn: made or read, scaled, and cut into windows."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from safectl.planners import Normaliser, gaussian_normaliser, limits_normaliser
from safectl.spec import Signal, Spec
from safectl_agents.diffusion.data import load_dataset, returns_to_go, windows
from safectl_agents.diffusion.maze_data import MazeDataConfig, require_made_with, write_maze_data
from safectl_agents.diffusion.settings import DiffuserConfig
from safectl_agents.diffusion.train import PlanRows
from safectl_envs import maze2d
from safectl_envs.maze_layout import LAYOUTS


class PlanData(NamedTuple):
    """What a trainer needs: plans, how their transitions are scaled, and the signals.

    `returns` are those of the plans, in the order of `rows.starts`, where a discount was named.
    """

    rows: PlanRows
    normaliser: Normaliser
    spec: Spec
    returns: Float[Tensor, " plans"] | None = None

    def positions(self, states: Float[Tensor, "*batch nx"]) -> Float[Tensor, "*batch 2"]:
        """Return the first two entries of normalised states, in physical units and unclipped."""
        place = slice(self.spec.nu, self.spec.nu + 2)
        return self.normaliser.centre[place] + self.normaliser.scale[place] * states[..., :2]


def plan_data(
    config: DiffuserConfig,
    folder: Path,
    *,
    discount: float | None = None,
    penalty: float = 0.0,
    progress: Callable[[int], None] = lambda _: None,
) -> PlanData:
    """Read the data of a configuration; those of a maze are made in `folder` first.

    Args:
        config: Its `dataset` is a maze, or a folder, file or identifier for `load_dataset`.
        folder: Where data that are made lie; they are made once.
        discount: Of the returns; without, none are computed.
        penalty: Added to the last reward of an episode that failed.
        progress: Told the number of steps that are made.

    Raises:
        FileFormatError, NonFiniteError, ShapeError: If the data cannot be used.
        ConfigError, StorageError: If they cannot be made.
    """
    source: Path | str = config.dataset
    if config.dataset in LAYOUTS:
        wanted = MazeDataConfig(maze=config.dataset, steps=config.data_steps, seed=config.seed)
        source = folder / f"maze2d-{config.dataset}"
        if source.exists():
            require_made_with(wanted, source)
        else:
            write_maze_data(wanted, source, progress=progress)
    data = load_dataset(source)
    actions, observations = torch.from_numpy(data.actions), torch.from_numpy(data.observations)
    transitions = torch.cat([actions, observations], dim=1)
    normaliser = _NORMALISERS[config.normaliser](transitions)
    returns = None if discount is None else returns_to_go(data, discount, penalty=penalty)
    first = np.arange(len(data.ends)) if config.pads else windows(data, config.horizon)
    starts = torch.from_numpy(first)
    if config.pads:
        transitions, starts = padded(transitions, torch.from_numpy(data.ends), config.horizon)
    if config.dataset in LAYOUTS:
        spec = maze2d(config.dataset).spec
    else:
        spec = _plain_spec(observations, actions)
    rows = PlanRows(normaliser.normalise(transitions), starts)
    return PlanData(
        rows, normaliser, spec, None if returns is None else torch.from_numpy(returns[first])
    )


def padded(
    transitions: Float[Tensor, "rows D"], ends: Bool[Tensor, " rows"], horizon: int
) -> tuple[Float[Tensor, "more D"], Int[Tensor, " rows"]]:
    """Append `horizon` - 1 rows of zeros to each episode, so that a plan may begin at every row.

    Args:
        transitions: Episodes one after the other, in physical units.
        ends: Whether a row is the last of its episode.
        horizon: States of a plan.

    Returns:
        The longer data and the first rows of plans.
    """
    episode = ends.long().cumsum(0) - ends.long()
    starts = torch.arange(len(transitions)) + episode * (horizon - 1)
    more = transitions.new_zeros(
        len(transitions) + int(ends.sum()) * (horizon - 1), transitions.shape[1]
    )
    more[starts] = transitions
    return more, starts


_NORMALISERS = {"limits": limits_normaliser, "gaussian": gaussian_normaliser}


def _plain_spec(observations: Tensor, actions: Tensor) -> Spec:
    """Name the entries of data that say nothing about themselves; the time counts steps."""
    inf = float("inf")
    bounds = zip(actions.amin(0).tolist(), actions.amax(0).tolist(), strict=True)
    return Spec(
        tuple(Signal(f"observation_{i}", "1", -inf, inf) for i in range(observations.shape[1])),
        tuple(Signal(f"action_{i}", "1", low, high) for i, (low, high) in enumerate(bounds)),
        1.0,
    )

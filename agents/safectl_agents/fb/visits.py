"""From a trained model and an unsafe set to calibrated probabilities of a visit.

b_U comes from the data of the training; the table from rollouts of the policy, whose starts are
observations of the data outside the set. Half of the first actions are the policy's, half random:
a safeguard asks about both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.barriers import Discs
from safectl.config import to_mapping
from safectl.errors import FileFormatError, RangeError, UnknownNameError
from safectl.models import (
    ConstrainedTask,
    ForwardBackward,
    VisitCritic,
    VisitScope,
    VisitScores,
    VisitTable,
    calibrate_visits,
    constrain_task,
    scope_of,
    score_visits,
    unsafe_embedding,
)
from safectl.models.occupancy import is_possible
from safectl.seed import torch_generator
from safectl.types import Task
from safectl_agents.fb.chosen_task import ChosenTask, choose_task
from safectl_agents.fb.domains import facts_of
from safectl_agents.fb.maze_batch import MazeBatch
from safectl_agents.fb.saved import TaskPolicy, last_checkpoint, save_visits
from safectl_agents.fb.settings import FBConfig
from safectl_agents.fb.train import load_run, load_run_data
from safectl_agents.fb.visit_rollouts import roll_out

_DOMAIN = "point_mass_maze"
_AVERAGED = 512
"""Observations over which a constrained task is searched."""
_RANGES = 10


@dataclass(frozen=True, slots=True)
class VisitsConfig:
    """Which visits, of which policy.

    Raises:
        RangeError: If a number lies outside its range.
    """

    disc: tuple[float, float, float] = (0.0, 0.25, 0.04)
    """The unsafe set: centre x and y and radius of a disc [m]."""
    task: str = "reach_top_right"
    """Task of the domain whose policy is rolled out."""
    budget: float | None = None
    """Largest mean occupancy C_U [steps]: the task is bent until its policy keeps it, `inf` and
    None leave the task as it is."""
    candidates: int = 0
    """Task vectors near that one whose policies are followed from starts of the domain, >= 0; the
    one that arrives most often without a visit is taken."""
    steps: int = 200
    """Horizon: steps of a rollout within which a visit counts, >= 1."""
    calibration: int = 4_000
    """Rollouts that make the table, >= 100."""
    held_out: int = 1_000
    """Further rollouts that judge it, >= 1."""
    near: float = 0.25
    """Share of the starts, of both, that is drawn from observations within one diameter of the
    disc; the others are drawn from all. In [0, 1)."""
    delta: float = 0.02
    """Share of visits that the alarm may miss, in (0, 1)."""
    seed: int = 0
    """Of starts, first actions and search, >= 0."""

    def __post_init__(self) -> None:
        for name, low in (
            ("steps", 1),
            ("calibration", 10 * _RANGES),
            ("held_out", 1),
            ("candidates", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f">= {low}")
        if not 0.0 < self.delta < 1.0:
            raise RangeError("delta", value=self.delta, expected="a number in (0, 1)")
        if not 0.0 <= self.near < 1.0:
            raise RangeError("near", value=self.near, expected="a number in [0, 1)")
        if self.budget is not None and not self.budget >= 0.0:
            raise RangeError("budget", value=self.budget, expected="a number >= 0")
        self.unsafe  # noqa: B018  refuses a disc that is none

    @property
    def unsafe(self) -> Discs:
        """The disc as a barrier: negative inside."""
        x, y, radius = self.disc
        return Discs(torch.tensor([[x, y]]), radius)


class Sample(NamedTuple):
    """Rollouts: starts, first actions, whether each visited the unsafe set, and all states."""

    start: Float[Tensor, "rollouts 4"]
    first: Float[Tensor, "rollouts 2"]
    visited: Bool[Tensor, " rollouts"]
    states: Float[Tensor, "rows rollouts 4"]


class Measured(NamedTuple):
    """What `measure_visits` found.

    Attributes:
        critic: C_U of the policy.
        table: Made from the calibration rollouts.
        scope: What these rollouts met.
        scores: Of the held-out rollouts.
        impossible: Share of held-out rollouts at whose start a head was impossible.
        started_near: Share of all rollouts that began within one diameter of the disc.
        mass: Mean of (1 - gamma) F^T B over starts and data: 1 for a right model, whatever the set.
        constrained: How the task was bent; None where it was not.
        chosen: How it was chosen by rollouts; None where it was not.
    """

    critic: VisitCritic
    table: VisitTable
    scope: VisitScope
    scores: VisitScores
    impossible: float
    started_near: float
    mass: float
    constrained: ConstrainedTask | None = None
    chosen: ChosenTask | None = None


def measure_visits(
    config: VisitsConfig,
    folder: Path,
    *,
    data: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Measure visits of the policy of a run and keep them in `visits.safetensors` of its folder.

    Args:
        config: Which visits.
        folder: Of a run of `safectl train fb` on the point-mass maze.
        data: Episodes it was trained on; those that the run names where absent.
        progress: Called with the parts done so far of `parts_of`: candidates, then steps.

    Raises:
        FileFormatError: If run or data cannot be read.
        NonFiniteError: If data or model hold NaN or infinity.
        RangeError: If the run is of another domain, or was trained with a penalty.
        ShapeError: If the data are not those of the domain.
        StorageError: If the file cannot be written; the one that was there stays.
        UnknownNameError: If the domain has no such task.
        UnsafeSetUnseen: If the data hold too little of the unsafe set.
    """
    run, model, step = load_run(folder, device="cpu")
    checkpoint = last_checkpoint(folder)
    if checkpoint.step != step:
        raise FileFormatError(folder, "is being trained", "measure visits when it has ended")
    task = _task(run, model, config.task)
    rows = load_run_data(folder, data)
    seen, entered = map(torch.from_numpy, (rows.observation, rows.next_observation))
    unsafe = unsafe_embedding(model.backward, entered, _inside(entered, config.unsafe))
    outside = seen[~_inside(seen, config.unsafe)]
    constrained = None
    if config.budget is not None and math.isfinite(config.budget):
        generator = torch_generator(config.seed, "constrained task")
        averaged = torch.randperm(len(outside), generator=generator)[:_AVERAGED]
        constrained = constrain_task(
            model, task, unsafe, outside[averaged], budget=config.budget, generator=generator
        )
        task = constrained.task
    chosen, done = None, 0
    if config.candidates:
        number, seed = config.candidates, config.seed
        choose = partial(choose_task, candidates=number, seed=seed, progress=progress)
        chosen = choose(model, task, config.unsafe, goal=config.task)
        task, done = chosen.task, chosen.tried
    critic = VisitCritic(model, task, unsafe, discount=run.gamma)
    tell = None if progress is None else lambda step: progress(done + step)
    sample = draw_rollouts(config, TaskPolicy(model, task), outside, progress=tell)
    everywhere = _everywhere(model, entered)
    measured = _judge(config, critic, sample, everywhere)
    measured = measured._replace(constrained=constrained, chosen=chosen)
    facts = {**to_mapping(config), **figures_of(measured)}
    save_visits(
        folder, task, unsafe, measured.table, measured.scope, checkpoint=checkpoint, facts=facts
    )
    return measured


def parts_of(config: VisitsConfig) -> int:
    """Return how many parts `measure_visits` tells of."""
    return config.steps + (config.candidates + 1 if config.candidates else 0)


def draw_rollouts(
    config: VisitsConfig,
    policy: TaskPolicy,
    observation: Float[Tensor, "samples 4"],
    *,
    progress: Callable[[int], None] | None = None,
) -> Sample:
    """Roll the policy out from observations drawn with replacement; half begin with its action.

    A share `config.near` of the starts, spread over the rollouts, is drawn near the disc.

    Raises:
        RangeError: If no observation is near it.
    """
    count = config.calibration + config.held_out
    generator = torch_generator(config.seed, "visits")
    start = observation[torch.randint(len(observation), (count,), generator=generator)]
    if config.near:
        near = observation[_is_near(observation, config.unsafe)]
        if not len(near):
            expected = "a set that some observations are near, or --near 0"
            raise RangeError("disc", value=config.disc, expected=expected)
        is_near = torch.rand(count, 1, generator=generator) < config.near
        drawn = near[torch.randint(len(near), (count,), generator=generator)]
        start = torch.where(is_near, drawn, start)
    random = 2.0 * torch.rand(count, 2, generator=generator) - 1.0
    is_own = torch.rand(count, 1, generator=generator) < 0.5
    first = torch.where(is_own, policy.act(start), random)
    found = roll_out(
        MazeBatch(count),
        policy,
        config.unsafe,
        steps=config.steps,
        start=start,
        first=first,
        progress=progress,
    )
    return Sample(start, first, found.visited, found.states)


def figures_of(measured: Measured) -> dict[str, Any]:
    """Return the figures of a measurement as JSON values."""
    names = ("impossible", "started_near", "mass")
    facts = {**measured.scores._asdict(), **{name: getattr(measured, name) for name in names}}
    if measured.constrained is not None:
        parts = measured.constrained._asdict()
        parts.pop("task")
        facts["constrained"] = parts
    if measured.chosen is not None:
        parts = measured.chosen._asdict()
        parts.pop("task")
        facts["chosen"] = parts
    return facts


@torch.no_grad()
def _everywhere(model: ForwardBackward, entered: Tensor) -> Tensor:
    """Return b_U of the set of all observations."""
    found: Tensor = model.backward(entered).mean(0)
    return found


@torch.no_grad()
def _judge(
    config: VisitsConfig, critic: VisitCritic, sample: Sample, everywhere: Tensor
) -> Measured:
    heads = critic.heads(sample.start, sample.first)
    occupancy, made = heads.amax(0), config.calibration
    table = calibrate_visits(
        occupancy[:made], sample.visited[:made], delta=config.delta, ranges=_RANGES
    )
    scores = score_visits(table, occupancy[made:], sample.visited[made:])
    possible = is_possible(heads[:, made:], critic.discount).all(0)
    total = VisitCritic(critic.model, critic.task, everywhere, discount=critic.discount)
    mass = float((1.0 - critic.discount) * total.heads(sample.start, sample.first).mean())
    scope = scope_of(sample.states[:, :made], config.unsafe, config.steps)
    near = float(_is_near(sample.start, config.unsafe).double().mean())
    return Measured(critic, table, scope, scores, float((~possible).double().mean()), near, mass)


def _task(run: FBConfig, model: ForwardBackward, name: str) -> Task:
    if run.domain != _DOMAIN:
        expected = f"{_DOMAIN}: rollouts of other domains need their simulators"
        raise RangeError("domain of the run", value=run.domain, expected=expected)
    if run.update.method != "fb":
        expected = "fb: a penalty presses F^T B down at unseen actions, which hides visits"
        raise RangeError("method of the run", value=run.update.method, expected=expected)
    goals = facts_of(run.domain).goals
    if name not in goals:
        raise UnknownNameError(f"task of {run.domain}", name, known=list(goals))
    return model.infer_goal(torch.tensor(goals[name]))


def _is_near(observation: Tensor, unsafe: Discs) -> Tensor:
    return (unsafe.value(observation) < 2.0 * unsafe.radius).any(-1)


def _inside(observation: Tensor, unsafe: Discs) -> Tensor:
    return (unsafe.value(observation) < 0.0).any(-1)

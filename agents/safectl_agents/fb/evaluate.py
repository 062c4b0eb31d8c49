"""Scores of a model on every task of its domain, without further learning."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from safectl.errors import FileFormatError, NonFiniteError, TaskNotInferable
from safectl.models import ForwardBackward
from safectl.types import Task
from safectl_agents.fb.domains import Domain, facts_of
from safectl_agents.fb.episodes import Transitions

LOWER = "lower the learning rates"
"""What helps a training whose weights or actions become NaN or infinite."""

_START_SEED = 7
"""Of the starts of evaluation episodes, equal for every training."""


class Labels(NamedTuple):
    """Observations (samples, nx) and the rewards of every task on entering them."""

    observation: Tensor
    rewards: Mapping[str, Tensor]


def make_labels(domain: str, transitions: Transitions, count: int, seed: int) -> Labels:
    """Label transitions by restoring the states of the simulator.

    Where every task has a goal there is nothing to label, and the labels are empty.

    Raises:
        FileFormatError: If the data hold no states.
        ShapeError: If they are those of another domain.
    """
    facts = facts_of(domain)
    if not facts.tasks.keys() - facts.goals.keys():
        return Labels(torch.from_numpy(transitions.next_observation[:0]), {})
    rows = np.random.default_rng(seed).permutation(len(transitions.action))[:count]
    if transitions.physics is None:
        advice = "infer tasks from a function of the observation instead"
        raise FileFormatError("the data", "hold no states of the simulator to label", advice)
    found = Domain(domain).label(transitions.physics[rows], transitions.action[rows])
    return Labels(
        torch.from_numpy(transitions.next_observation[rows]),
        {name: torch.from_numpy(found[:, k].copy()) for k, name in enumerate(facts.tasks)},
    )


def infer_tasks(model: ForwardBackward, domain: str, labels: Labels) -> dict[str, Task]:
    """Return a task vector per task: from its goal where the domain has one, else from rewards.

    A task that the labels do not show is left out.
    """
    device = next(model.actor.parameters()).device
    facts, tasks = facts_of(domain), {}
    for name in facts.tasks:
        if name in facts.goals:
            tasks[name] = model.infer_goal(torch.tensor(facts.goals[name], device=device))
            continue
        try:
            reward = labels.rewards[name].to(device)
            tasks[name] = model.infer(labels.observation.to(device), reward)
        except TaskNotInferable:
            continue
    return tasks


class Policies(NamedTuple):
    """Policies of some tasks.

    Attributes:
        tasks: Names of the tasks.
        act: Maps observations (tasks, rows, nx) to actions (tasks, rows, nu) in [-1, 1].
    """

    tasks: tuple[str, ...]
    act: Callable[[Tensor], Tensor]


def task_policies(model: ForwardBackward, tasks: Mapping[str, Task]) -> Policies:
    """Return the mean policies of tasks."""
    device = next(model.actor.parameters()).device
    vectors = [task.vector.to(device) for task in tasks.values()]

    def act(observation: Tensor) -> Tensor:
        count, rows, _ = observation.shape
        task = torch.stack(vectors).repeat_interleave(rows, 0)
        action: Tensor = model.actor(observation.flatten(0, 1).to(device), task)
        return action.reshape(count, rows, -1)

    return Policies(tuple(tasks), act)


def play(
    policies: Policies,
    domain: str,
    episodes: int,
    *,
    reward: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return the returns of policies, shape (episodes,) per task.

    All episodes of all tasks go in step, so that policies are asked once per step; every task
    meets the same starts.

    Args:
        policies: What acts.
        domain: Name of the domain.
        episodes: Starts.
        reward: Maps observations (rows, nx) to the rewards (rows,) on entering them; that of each
            task where absent.
        progress: Called after every step with the number of steps so far.

    Raises:
        NonFiniteError: If an action is NaN or infinite, as large weights make it.
    """
    names = policies.tasks
    if not names:
        return {}
    worlds = [Domain(domain, seed=_START_SEED + e) for _ in names for e in range(episodes)]
    asked = [name for name in names for _ in range(episodes)]
    observation = np.stack([world.reset() for world in worlds])
    returns = np.zeros(len(worlds))
    for step in range(worlds[0].episode_steps):
        with torch.no_grad():
            rows = torch.from_numpy(observation).reshape(len(names), episodes, -1)
            action = policies.act(rows).flatten(0, 1).cpu().numpy()
        bad = int((~np.isfinite(action)).sum())
        if bad:
            raise NonFiniteError("action", count=bad, size=action.size, advice=LOWER)
        moved = [world.step(one) for world, one in zip(worlds, action, strict=True)]
        observation = np.stack(moved)
        if reward is None:
            returns += [world.reward(name) for world, name in zip(worlds, asked, strict=True)]
        else:
            returns += reward(torch.from_numpy(observation)).numpy()
        if progress is not None:
            progress(step + 1)
    return dict(zip(names, returns.reshape(len(names), episodes), strict=True))


def score(returns: NDArray[np.float64]) -> float:
    """Return the mean of the middle half of the returns (IQM)."""
    return float(stats.trim_mean(returns, 0.25))

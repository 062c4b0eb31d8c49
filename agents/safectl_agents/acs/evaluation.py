"""What a trained model does in some episodes, with its safeguard and without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from safectl_agents.evaluate import episode_seed

Env = gym.Env[NDArray[Any], NDArray[Any]]

_CALM = 5  # steps in a row without cost after which a violation counts as over


Watch = Callable[[list[int], NDArray[Any], NDArray[Any]], None]
"""Called before each step with running episodes, their observations and their actions, by rows."""


class Episode(NamedTuple):
    """One episode.

    Attributes:
        reward: Sum of rewards.
        costs: Cost of every step, 0 or 1.
        success: `is_success` of the last step, NaN where the task has none.
        collisions: `collisions` of the last step, NaN where the task counts none.
    """

    reward: float
    costs: list[float]
    success: float = float("nan")
    collisions: float = float("nan")


@dataclass(frozen=True, slots=True)
class Scores:
    """Some episodes in numbers; costs are violating steps per episode.

    Attributes:
        return_mean: Mean return.
        return_std: Its standard deviation over the episodes.
        return_min: Smallest return.
        return_max: Largest return.
        cost_mean: Mean cost.
        cost_std: Its standard deviation over the episodes.
        cost_max: Largest cost.
        violation_rate: Violating steps per step.
        safe_share: Share of the episodes without a violation.
        recovery_steps: Steps from the first violation to the next five calm ones, mean over the
            episodes that have both; NaN without any.
        success_share: Share of the episodes that reached their target; NaN where a task has none.
        collisions_mean: Mean number of collisions; NaN where a task counts none.
    """

    return_mean: float
    return_std: float
    return_min: float
    return_max: float
    cost_mean: float
    cost_std: float
    cost_max: float
    violation_rate: float
    safe_share: float
    recovery_steps: float
    success_share: float = float("nan")
    collisions_mean: float = float("nan")


def evaluate(model: BaseAlgorithm, envs: Sequence[Env], seed: int, *, guarded: bool) -> Scores:
    """Return the scores of `play`."""
    return summarise(play(model, envs, seed, guarded=guarded))


def play(
    model: BaseAlgorithm,
    envs: Sequence[Env],
    seed: int,
    *,
    guarded: bool,
    watch: Watch | None = None,
) -> list[Episode]:
    """Run one episode per environment without exploration noise.

    Args:
        model: A trainer; its `predict` corrects, its policy's does not.
        envs: Copies of the task.
        seed: The episodes' seeds are derived from it.
        guarded: Whether actions are corrected.
        watch: Sees every step.
    """
    episodes = [Episode(0.0, []) for _ in envs]
    observations = [env.reset(seed=episode_seed(seed, index))[0] for index, env in enumerate(envs)]
    running = list(range(len(envs)))
    while running:
        rows = np.stack([observations[index] for index in running])
        before = np.array([(episodes[index].costs or [0.0])[-1] for index in running])
        if guarded:
            actions, _ = model.predict(rows, state=(before,), deterministic=True)
        else:
            actions, _ = model.policy.predict(rows, deterministic=True)
        if watch is not None:
            watch(running, rows, actions)
        ended = []
        for index, action in zip(running, actions, strict=True):
            observations[index], reward, terminated, truncated, info = envs[index].step(action)
            cost = float(info.get("cost", 0.0) > 0.0)
            episodes[index].costs.append(cost)
            total = episodes[index].reward + float(reward)
            episodes[index] = episodes[index]._replace(reward=total)
            if terminated or truncated:
                ended.append(index)
                episodes[index] = episodes[index]._replace(
                    success=float(info.get("is_success", "nan")),
                    collisions=float(info.get("collisions", "nan")),
                )
        running = [index for index in running if index not in ended]
    return episodes


def summarise(episodes: Sequence[Episode]) -> Scores:
    """Return the scores of one episode or more."""
    returns = np.array([episode.reward for episode in episodes])
    costs = np.array([sum(episode.costs) for episode in episodes])
    recoveries = [recovery_steps(episode.costs) for episode in episodes]
    known = [steps for steps in recoveries if steps is not None]
    return Scores(
        float(returns.mean()),
        float(returns.std()),
        float(returns.min()),
        float(returns.max()),
        float(costs.mean()),
        float(costs.std()),
        float(costs.max()),
        float(costs.sum() / sum(len(episode.costs) for episode in episodes)),
        float((costs == 0.0).mean()),
        float(np.mean(known)) if known else float("nan"),
        float(np.mean([episode.success for episode in episodes])),
        float(np.mean([episode.collisions for episode in episodes])),
    )


def recovery_steps(costs: Sequence[float]) -> int | None:
    """Return the steps from the first violation to the next five calm steps, None without both."""
    first = next((index for index, cost in enumerate(costs) if cost > 0.0), None)
    if first is None:
        return None
    for index in range(first, len(costs) - _CALM + 1):
        if not any(costs[index : index + _CALM]):
            return index - first
    return None

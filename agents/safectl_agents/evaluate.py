"""Return, cost, violations and the safeguard's interventions, each with a confidence interval.

Every episode starts from a seed of its own that is recorded with it, so each can be replayed.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from safectl.errors import NonFiniteError
from safectl.seed import derive, numpy_generator
from safectl.types import Policy, Status
from safectl_agents.statistics import Interval, mean_interval, rate_interval, share_interval

Env = gym.Env[NDArray[Any], NDArray[Any]]

_TOGETHER = 32  # copies of an environment at a time


class Step(NamedTuple):
    """One step as the environment and its guard report it; margin is None without a guard."""

    reward: float
    cost: float
    status: Status
    margin: float | None


@dataclass(frozen=True, slots=True)
class Episode:
    """Sums over one episode.

    Attributes:
        seed: What the environment was reset with.
        reward: Sum of rewards.
        cost: Sum of `info["cost"]`.
        length: Steps.
        violations: Steps with a positive cost.
        corrected: Steps whose action the safeguard corrected.
        fallback: Steps on which it used its fallback.
        min_margin: Smallest margin of a certificate, in the unit of the constraint; None without
            a guard.
    """

    seed: int
    reward: float
    cost: float
    length: int
    violations: int
    corrected: int
    fallback: int
    min_margin: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a policy does in an environment, with 95 % intervals.

    Attributes:
        seed: Where the seeds of the episodes come from.
        reward: Return per episode.
        cost: Cost per episode.
        violation_rate: Steps with a positive cost per step, episodes being the independent units.
        violating_episodes: Share of episodes with at least one such step.
        corrected_rate: Steps on which the safeguard corrected the action, per step; None without
            a guard.
        fallback_rate: Steps on which it used its fallback, per step; None without a guard.
        min_margin: Smallest margin of any certificate; None without a guard.
        episodes: Every episode.
    """

    seed: int
    reward: Interval
    cost: Interval
    violation_rate: Interval
    violating_episodes: Interval
    corrected_rate: Interval | None
    fallback_rate: Interval | None
    min_margin: float | None
    episodes: tuple[Episode, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return asdict(self)


def evaluate(
    policy: Policy,
    make_envs: Callable[[int], VectorEnv[Any, Any, Any]],
    *,
    episodes: int,
    seed: int,
) -> Evaluation:
    """Run a policy for some episodes, many side by side, and summarise them.

    Args:
        policy: What proposes the actions.
        make_envs: Makes this many copies, with or without a guard around them.
        episodes: Number of episodes, >= 2.
        seed: Every episode's seed is derived from it; equal seeds give equal evaluations.

    Raises:
        NonFiniteError: If an observation, a reward or a cost is NaN or infinite.
        RangeError: If `episodes` < 2.
    """
    seeds = [episode_seed(seed, index) for index in range(episodes)]
    finished: list[Episode] = []
    for start in range(0, episodes, _TOGETHER):
        some = seeds[start : start + _TOGETHER]
        env = make_envs(len(some))
        try:
            finished += _run_together(policy, env, some)
        finally:
            env.close()
    return summarise(finished, seed)


def episode_seed(seed: int, index: int) -> int:
    """Return the reset seed of one episode of an evaluation, 31 bits."""
    return derive(seed, f"evaluation episode {index}") >> 32


def run(policy: Policy, env: Env, seed: int) -> Iterator[Step]:
    """Yield the steps of one episode; between two of them the environment can be drawn.

    Raises:
        NonFiniteError: If an observation, a reward or a cost is NaN or infinite.
    """
    observation, _ = env.reset(seed=seed)
    done = False
    while not done:
        row = torch.as_tensor(np.asarray(observation), dtype=torch.float32)[None]
        action = policy.act(row)[0].cpu().numpy()
        observation, reward, terminated, truncated, info = env.step(action)
        done = bool(terminated or truncated)
        cost = float(info.get("cost", 0.0))
        _require_finite(np.asarray(observation), float(reward), cost, seed)
        yield Step(float(reward), cost, *_certificate(info))


def summarise(episodes: list[Episode], seed: int) -> Evaluation:
    """Summarise finished episodes; `seed` also seeds the resampling of the intervals.

    Raises:
        RangeError: If there are fewer than two.
    """
    lengths = [episode.length for episode in episodes]
    generator = numpy_generator(seed, "evaluation intervals")
    violating = sum(episode.violations > 0 for episode in episodes)
    margins = [episode.min_margin for episode in episodes if episode.min_margin is not None]

    def interventions(counts: list[int]) -> Interval | None:
        return rate_interval(counts, lengths, generator) if margins else None

    return Evaluation(
        seed=seed,
        reward=mean_interval([episode.reward for episode in episodes]),
        cost=mean_interval([episode.cost for episode in episodes]),
        violation_rate=rate_interval([e.violations for e in episodes], lengths, generator),
        violating_episodes=share_interval(violating, len(episodes)),
        corrected_rate=interventions([e.corrected for e in episodes]),
        fallback_rate=interventions([e.fallback for e in episodes]),
        min_margin=min(margins, default=None),
        episodes=tuple(episodes),
    )


def _run_together(policy: Policy, env: VectorEnv[Any, Any, Any], seeds: list[int]) -> list[Episode]:
    """Run the first episode of every copy; a copy that is done is stepped on but not counted."""
    steps: list[list[Step]] = [[] for _ in seeds]
    observation, _ = env.reset(seed=list(seeds))  # type: ignore[arg-type]  # lists are taken too
    running = np.ones(len(seeds), dtype=np.bool_)
    while running.any():
        action = policy.act(torch.as_tensor(np.asarray(observation)).float())
        observation, rewards, terminated, truncated, info = env.step(action.cpu().numpy())
        costs = np.asarray(info.get("cost", np.zeros(len(seeds))))
        for row in np.flatnonzero(running).tolist():
            reward, cost = float(rewards[row]), float(costs[row])
            _require_finite(np.asarray(observation[row]), reward, cost, seeds[row])
            steps[row].append(Step(reward, cost, *_row_evidence(info, row)))
        running &= ~(terminated | truncated)
    return [_sum_up(number, rows) for number, rows in zip(seeds, steps, strict=True)]


def _row_evidence(info: dict[str, Any], row: int) -> tuple[Status, float | None]:
    if "certificate" not in info:
        return Status.KEPT, None
    return Status(int(info["status"][row])), float(info["margin"][row])


def _sum_up(seed: int, rows: list[Step]) -> Episode:
    margins = [step.margin for step in rows if step.margin is not None]
    return Episode(
        seed=seed,
        reward=sum(step.reward for step in rows),
        cost=sum(step.cost for step in rows),
        length=len(rows),
        violations=sum(step.cost > 0.0 for step in rows),
        corrected=sum(step.status is Status.CORRECTED for step in rows),
        fallback=sum(step.status is Status.FALLBACK for step in rows),
        min_margin=min(margins, default=None),
    )


def _certificate(info: dict[str, Any]) -> tuple[Status, float | None]:
    if "certificate" not in info:
        return Status.KEPT, None
    certificate = info["certificate"]
    return Status(int(certificate.status[0])), float(certificate.margin[0])


def _require_finite(observation: NDArray[Any], reward: float, cost: float, seed: int) -> None:
    for name, values in (("observation", observation), ("reward, cost", np.array([reward, cost]))):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            advice = f"look at the environment in the episode with seed {seed}"
            raise NonFiniteError(name, count=bad, size=values.size, advice=advice)

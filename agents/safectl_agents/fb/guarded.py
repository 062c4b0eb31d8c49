"""A policy in the maze with and without its limit on visits, side by side from equal starts."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.barriers import Discs
from safectl.errors import FileFormatError
from safectl.safeguards import VisitLimit
from safectl.types import Policy
from safectl_agents.fb import VISITS
from safectl_agents.fb.domains import facts_of
from safectl_agents.fb.maze_batch import MazeBatch
from safectl_agents.fb.saved import TaskPolicy, Visits, load_visits
from safectl_agents.fb.visit_rollouts import MAZE_SPEC, Driver, Rollouts, roll_out, starts_outside
from safectl_envs.guard import VectorGuard

_Ways = dict[str, tuple[Policy, VisitLimit | None]]

_CHUNK = 250
"""Copies that run at once, so that the candidates of a guard fit the cache."""


class Compared(NamedTuple):
    """The same starts, run in several ways.

    Attributes:
        task: Name of the task.
        unsafe: What counts as a visit.
        runs: Rollouts of the task that was asked for, `plain`; of the one that was measured,
            `shaped`; and of that one behind the limit, `guarded`. Or, of `compare_driven`, those of
            a policy that drives at the set, `driven`, and behind the limit, `stopped`.
    """

    task: str
    unsafe: Discs
    runs: dict[str, Rollouts]

    def figures(self) -> dict[str, dict[str, float]]:
        """Return violations, success, safe success and interventions of every run."""
        return {name: self._row(run) for name, run in self.runs.items()}

    def _row(self, run: Rollouts) -> dict[str, float]:
        visited, reached = run.visited, run.reached(self.task)
        return {
            "episodes": float(len(visited)),
            "violation_rate": float(visited.double().mean()),
            "success": float(reached.double().mean()),
            "safe_success": float((reached & ~visited).double().mean()),
            "corrected": run.corrected,
            "fallbacks": run.fallbacks,
        }


def compare_guarded(
    folder: Path,
    *,
    limit: float = 0.1,
    candidates: int = 16,
    episodes: int = 200,
    steps: int = 1_000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Compared:
    """Run the policy of a folder with visits from starts of the domain, outside the unsafe set.

    Args:
        folder: Of a run with `visits.safetensors`.
        limit: Largest admissible probability of a visit, in (0, 1).
        candidates: As in `VisitLimit`.
        episodes: Starts, the same for every way.
        steps: Of an episode.
        seed: Of the starts.
        progress: Called after every step with the number of all steps so far.

    Raises:
        FileFormatError: If the folder holds no run with visits of a disc in the maze.
        RangeError: As `VisitLimit`, or if the unsafe set covers every start.
    """
    visits = load_visits(folder, MAZE_SPEC)
    task, unsafe = _asked(folder, visits)
    goal = torch.tensor(facts_of("point_mass_maze").goals[task])
    plain = TaskPolicy(visits.critic.model, visits.critic.model.infer_goal(goal))
    guard = visits.limit(MAZE_SPEC, limit=limit, candidates=candidates)
    start = starts_outside(unsafe, episodes, seed)
    ways: _Ways = {
        "plain": (plain, None),
        "shaped": (visits.policy, None),
        "guarded": (visits.policy, guard),
    }
    return Compared(task, unsafe, _run(ways, unsafe, start, steps, progress=progress))


def compare_driven(
    folder: Path, *, limit: float, candidates: int, episodes: int, steps: int, seed: int
) -> Compared:
    """Run a policy that drives at the unsafe set, as it is and behind the limit of a folder.

    What the limit promises is not about this policy; that it stops it is measured.

    Args:
        folder: As in `compare_guarded`, as all others.
        limit: Largest admissible probability of a visit.
        candidates: Of the limit.
        episodes: Starts.
        steps: Of an episode.
        seed: Of the starts.

    Raises:
        FileFormatError, RangeError: As `compare_guarded`.
    """
    visits = load_visits(folder, MAZE_SPEC)
    task, unsafe = _asked(folder, visits)
    guard = visits.limit(MAZE_SPEC, limit=limit, candidates=candidates)
    driver, start = Driver(unsafe), starts_outside(unsafe, episodes, seed)
    ways: _Ways = {"driven": (driver, None), "stopped": (driver, guard)}
    return Compared(task, unsafe, _run(ways, unsafe, start, steps))


def _run(
    ways: _Ways,
    unsafe: Discs,
    start: Float[Tensor, "rollouts 4"],
    steps: int,
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Rollouts]:
    """Run every way from the same starts."""
    runs, done = {}, 0
    for name, (policy, safeguard) in ways.items():
        parts = []
        for rows in torch.split(start, _CHUNK):
            env = MazeBatch(len(rows))
            around = env if safeguard is None else VectorGuard(env, safeguard)
            before = done

            def tell(step: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + step)

            parts.append(roll_out(around, policy, unsafe, steps=steps, start=rows, progress=tell))
            done += steps
        runs[name] = _joined(parts)
    return runs


def steps_of(episodes: int, steps: int) -> int:
    """Return how many steps `compare_guarded` tells of."""
    return 3 * steps * math.ceil(episodes / _CHUNK)


def _asked(folder: Path, visits: Visits) -> tuple[str, Discs]:
    """Return the task and the disc that the visits are about."""
    try:
        task = str(visits.facts["task"])
        x, y, radius = map(float, visits.facts["disc"])
        facts_of("point_mass_maze").goals[task]
    except (KeyError, TypeError, ValueError) as error:
        problem = f"does not say which disc and which task it is about ({error})"
        advice = "write it again with: safectl visits"
        raise FileFormatError(folder / VISITS, problem, advice) from error
    return task, Discs(torch.tensor([[x, y]]), radius)


def _joined(parts: list[Rollouts]) -> Rollouts:
    count = sum(len(part.visited) for part in parts)
    corrected, fallbacks = (
        sum(getattr(part, name) * len(part.visited) for part in parts) / count
        for name in ("corrected", "fallbacks")
    )
    return Rollouts(
        torch.cat([part.states for part in parts], 1),
        torch.cat([part.visited for part in parts]),
        corrected,
        fallbacks,
    )

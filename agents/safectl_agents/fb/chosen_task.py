"""A task vector chosen by rollouts: who arrives most often without a visit.

The model's own prediction (`constrain_task`) is an average over all states; how a policy gets from
the starts of the domain around an unsafe set is only seen by following it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from safectl.barriers import Discs
from safectl.models import ForwardBackward
from safectl.models.networks import on_sphere
from safectl.seed import derive, torch_generator
from safectl.types import Task
from safectl_agents.fb.maze_batch import MazeBatch
from safectl_agents.fb.saved import TaskPolicy
from safectl_agents.fb.visit_rollouts import roll_out, starts_outside

STARTS, STEPS = 60, 800
"""Rollouts per task vector, and their length."""

_SPREADS = (0.1, 0.2, 0.3, 0.45)
"""Deviations of a vector from the best one so far, per entry; an entry's mean square is 1."""

_SEED_BITS = 31


class ChosenTask(NamedTuple):
    """A task vector, and how the rollouts that chose it went.

    Attributes:
        task: The vector.
        safe_success: Share of its rollouts that reached the goal and did not visit.
        asked_safe_success: The same of the vector it began with.
        tried: Vectors that were rolled out.
    """

    task: Task
    safe_success: float
    asked_safe_success: float
    tried: int


@torch.no_grad()
def choose_task(
    model: ForwardBackward,
    task: Task,
    unsafe: Discs,
    *,
    goal: str,
    candidates: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> ChosenTask:
    """Climb from a task vector to near ones whose rollouts go better; return the best.

    The best of many is praised too highly by the rollouts that chose it: judge it by others.

    Args:
        model: Gives the policies.
        task: The vector that was asked for; tried first, and kept unless another is better.
        unsafe: What counts as a visit.
        goal: Name of the goal in the maze that counts as success.
        candidates: Further vectors, >= 1.
        seed: Of vectors and starts.
        progress: Called after every vector with their number so far.

    Raises:
        RangeError: If the unsafe set covers every start.
    """
    generator = torch_generator(seed, "chosen task")
    reset = derive(seed, "starts of chosen tasks") % 2**_SEED_BITS
    start = starts_outside(unsafe, STARTS, reset)
    best, most, asked = task, -1.0, 0.0
    for number in range(candidates + 1):
        tried = task
        if number:
            noise = torch.randn(len(task.vector), generator=generator)
            tried = Task(on_sphere(best.vector + _SPREADS[number % len(_SPREADS)] * noise))
        found = roll_out(
            MazeBatch(len(start)), TaskPolicy(model, tried), unsafe, steps=STEPS, start=start
        )
        share = float((found.reached(goal) & ~found.visited).double().mean())
        if share > most:
            best, most = tried, share
        if not number:
            asked = share
        if progress is not None:
            progress(number + 1)
    return ChosenTask(best, most, asked, candidates + 1)

"""The task vector of most reward whose policy keeps an occupancy within a budget.

What the policy of z earns, E[F(s, pi_z(s), z)]^T z_R, and where it is, E[F(s, pi_z(s), z)]^T b_U,
are linear in the features E[F] of that policy, but those bend with z; so z is searched, not solved
for. The search begins on the line z_R - lambda b_U and goes on around the best.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from safectl.errors import NonFiniteError, RangeError, ShapeError
from safectl.models.forward_backward import ForwardBackward
from safectl.models.networks import on_sphere
from safectl.types import Task

_WEIGHTS = 16
"""Weights lambda of the first round, from 0 to as much of b_U as there is of z_R, and beyond."""
_ROUNDS, _AROUND = 6, 48
"""Rounds after the first, and vectors of each."""
_SPREAD = 0.5
"""Deviation of the first round around the best, per entry of z; it halves with every round."""


class ConstrainedTask(NamedTuple):
    """A task vector, and what the model predicts of its policy.

    Attributes:
        task: The vector.
        value: Mean over the observations of min_k F_k^T z_R: reward of the task that was asked for.
        occupancy: Mean over the observations of max_k F_k^T b_U.
        is_within: Whether the occupancy is within the budget; where no vector was, this is the one
            of least occupancy.
        asked_value: Value of the task that was asked for.
        asked_occupancy: Occupancy of the task that was asked for.
    """

    task: Task
    value: float
    occupancy: float
    is_within: bool
    asked_value: float
    asked_occupancy: float


@torch.no_grad()
def constrain_task(
    model: ForwardBackward,
    task: Task,
    unsafe: Float[Tensor, " nz"],
    observation: Shaped[Tensor, "..."],
    *,
    budget: float,
    generator: torch.Generator,
) -> ConstrainedTask:
    """Search the task vector of most reward for `task` whose occupancy is within a budget.

    Not promised: that the policy visits the unsafe set as rarely as predicted; calibrate it on
    rollouts (`calibrate_visits`). About 300 policies are asked at every observation.

    Args:
        model: Trained without a penalty.
        task: What to do, z_R.
        unsafe: b_U of `unsafe_embedding`.
        observation: States over which reward and occupancy are averaged, shape (samples, nx).
        budget: Largest mean C_U, in steps, >= 0.
        generator: Of the search, on the device of the model.

    Raises:
        RangeError: If the budget is negative or not finite.
        ShapeError: If b_U or the observations are not those of the model.
        NonFiniteError: If an observation or b_U is NaN or infinite.
    """
    if not 0.0 <= budget < torch.inf:
        raise RangeError("budget", value=budget, expected="a number >= 0")
    if unsafe.shape != (model.sizes.nz,):
        raise ShapeError("unsafe", expected=(model.sizes.nz,), got=tuple(unsafe.shape))
    if observation.ndim != 2 or observation.shape[1] != model.sizes.nx or not len(observation):
        expected = ("samples", model.sizes.nx)
        raise ShapeError("observation", expected=expected, got=tuple(observation.shape))
    for name, values in (("observation", observation), ("unsafe", unsafe)):
        bad = int((~values.isfinite()).sum())
        if bad:
            advice = "remove it from the data"
            raise NonFiniteError(name, count=bad, size=values.numel(), advice=advice)
    weights = torch.linspace(0.0, 1.0, _WEIGHTS).to(observation)
    share = weights / (1.0 - 0.9 * weights)
    tried = on_sphere(task.vector - share[:, None] * on_sphere(unsafe))
    found = _predict(model, task, unsafe, observation, tried)
    best, asked = _best(tried, found, budget), found[:, 0]
    for turn in range(_ROUNDS):
        noise = torch.randn(_AROUND, len(unsafe), generator=generator, device=generator.device).to(
            observation
        )
        tried = torch.cat([best[None], on_sphere(best + _SPREAD / 2**turn * noise)])
        found = _predict(model, task, unsafe, observation, tried)
        best = _best(tried, found, budget)
    value, occupancy = _predict(model, task, unsafe, observation, best[None])[:, 0].tolist()
    return ConstrainedTask(
        *(Task(best), value, occupancy, occupancy <= budget),
        *(float(asked[0]), float(asked[1])),
    )


def _predict(
    model: ForwardBackward,
    task: Task,
    unsafe: Tensor,
    observation: Tensor,
    tried: Float[Tensor, "vectors nz"],
) -> Float[Tensor, "2 vectors"]:
    """Return the mean value and the mean occupancy of the policy of every vector."""
    pairs = []
    for vector in tried:
        rows = vector.expand(len(observation), -1)
        embedded = model.forward(observation, model.actor(observation, rows), rows)
        value, occupancy = embedded @ task.vector, embedded @ unsafe
        pairs.append(torch.stack([value.amin(0).mean(), occupancy.amax(0).mean()]))
    return torch.stack(pairs, 1)


def _best(tried: Tensor, found: Tensor, budget: float) -> Tensor:
    """Return the vector of most value within the budget, else that of least occupancy."""
    value, occupancy = found
    within = occupancy <= budget
    if bool(within.any()):
        return tried[torch.where(within, value, -torch.inf).argmax()]
    return tried[occupancy.argmin()]

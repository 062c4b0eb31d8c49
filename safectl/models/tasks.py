"""Task vectors: drawn while training, and inferred from rewards, goals or a reward function.

A reward belongs to the state that was entered: `observation` is the next observation of a
transition and the reward is the one on entering it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from safectl.errors import NonFiniteError, RangeError, ShapeError, TaskNotInferable
from safectl.models.networks import Backward, on_sphere
from safectl.types import Task

_BOOTSTRAPS = 32


class TaskQuality(NamedTuple):
    """How far a task vector can be trusted.

    Attributes:
        samples: Labelled observations.
        nonzero: Share of rewards that are not zero; of a sparse task a few in a thousand.
        r_squared: Share of the variance of the reward that is linear in B: what the model can see.
        spread: Mean cosine between the vector and those of resampled labels, 1 for no spread.
    """

    samples: int
    nonzero: float
    r_squared: float
    spread: float


def sample_tasks(
    backward: Float[Tensor, "batch nz"],
    normal: Float[Tensor, "batch nz"],
    from_data: Bool[Tensor, " batch"],
    shuffle: Int[Tensor, " batch"],
) -> Float[Tensor, "batch nz"]:
    """Return a task per row: B of another row of the batch, or uniform on the sphere.

    Args:
        backward: B of the batch; no gradient flows into it.
        normal: Standard normal numbers, whose direction is uniform.
        from_data: Rows whose task is a B.
        shuffle: A permutation of the rows.
    """
    return torch.where(from_data[:, None], backward.detach()[shuffle], on_sphere(normal))


@torch.no_grad()
def infer_from_rewards(
    backward: Backward,
    observation: Shaped[Tensor, "..."],
    reward: Shaped[Tensor, "..."],
) -> Task:
    """Return z = sqrt(nz) unit(mean r B(s')), which a positive scale of the reward does not move.

    Args:
        backward: B of the model.
        observation: Next observations, shape (samples, nx).
        reward: On entering them, shape (samples,).

    Raises:
        ShapeError: If there is not one reward per observation.
        NonFiniteError: If a number is NaN or infinite.
        TaskNotInferable: If there are no labels, or the mean of r B is zero, as where none of them
            has a reward.
    """
    _check(observation, reward)
    mean = (reward.to(observation)[:, None] * backward(observation)).mean(0)
    if not len(reward) or not bool(mean.any()):
        raise TaskNotInferable(labels=len(reward), nonzero=int((reward != 0).sum()))
    return Task(on_sphere(mean))


@torch.no_grad()
def infer_from_goal(backward: Backward, goal: Shaped[Tensor, "..."]) -> Task:
    """Return z = B(goal) for reaching one observation.

    Raises:
        ShapeError: If the goal is no single observation.
        NonFiniteError: If it holds NaN or infinity.
    """
    if goal.ndim != 1:
        raise ShapeError("goal", expected=("nx",), got=tuple(goal.shape))
    _require_finite("goal", goal, "name a reachable observation")
    return Task(backward(goal[None])[0])


def infer_from_function(
    backward: Backward,
    observation: Float[Tensor, "samples nx"],
    function: Callable[[Tensor], Tensor],
) -> Task:
    """Label observations with a user's reward function, then infer as from rewards.

    Args:
        backward: B of the model.
        observation: Observations of the data, shape (samples, nx).
        function: Maps observations (samples, nx) to rewards (samples,).

    Raises:
        ShapeError, NonFiniteError, TaskNotInferable: As `infer_from_rewards`.
        RangeError: As `rewards_of`.
    """
    return infer_from_rewards(backward, observation, rewards_of(function, observation))


def rewards_of(
    function: Callable[[Tensor], Tensor], observation: Float[Tensor, "samples nx"]
) -> Shaped[Tensor, " samples"]:
    """Return what a user's reward function says, as numbers like the observations.

    Raises:
        NonFiniteError: If a reward is NaN or infinite.
        RangeError: If the function returns no numbers.
        ShapeError: If there is not one reward per observation.
    """
    returned = function(observation.clone())  # it may write into what it is given
    try:
        reward = torch.as_tensor(returned).detach().to(observation)
    except (TypeError, ValueError, RuntimeError) as error:
        expected = "one number per observation from the reward function"
        raise RangeError("reward", value=returned, expected=expected) from error
    _check(observation, reward)
    return reward


@torch.no_grad()
def task_quality(
    backward: Backward,
    observation: Shaped[Tensor, "..."],
    reward: Shaped[Tensor, "..."],
    generator: torch.Generator,
) -> TaskQuality:
    """Say how far the vector of these labels can be trusted.

    Raises:
        ShapeError, NonFiniteError, TaskNotInferable: As `infer_from_rewards`.
    """
    task = infer_from_rewards(backward, observation, reward).vector
    features, labels = backward(observation).double(), reward.double()
    centred = labels - labels.mean()
    columns = features - features.mean(0)
    # The default driver demands full rank; B of few distinct states has less.
    fit = torch.linalg.lstsq(columns.cpu(), centred.cpu()[:, None], driver="gelsd").solution[:, 0]
    rest = (centred.cpu() - columns.cpu() @ fit).square().sum()
    total = centred.square().sum().cpu()
    rows = torch.randint(
        len(labels), (_BOOTSTRAPS, len(labels)), generator=generator, device=generator.device
    ).to(labels.device)
    resampled = on_sphere(torch.stack([(labels[r, None] * features[r]).mean(0) for r in rows]))
    cosine = resampled @ task.double() / len(task)
    return TaskQuality(
        samples=len(labels),
        nonzero=float((labels != 0).double().mean()),
        r_squared=float(1.0 - rest / total) if total > 0 else 0.0,
        spread=float(cosine.mean()),
    )


def _check(observation: Tensor, reward: Tensor) -> None:
    if reward.shape != observation.shape[:1]:
        got = tuple(reward.shape)
        raise ShapeError("reward", expected=(len(observation),), got=got)
    _require_finite("observation", observation, "remove such rows from the data")
    _require_finite("reward", reward, "correct the reward function")


def _require_finite(name: str, values: Tensor, advice: str) -> None:
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise NonFiniteError(name, count=bad, size=values.numel(), advice=advice)

"""How often a policy will be in an unsafe set, and what that bounds.

With b_U the mean of B over the data where they are unsafe, C_U(s, a, z) = F(s, a, z)^T b_U
estimates E[sum_t gamma^t 1_U(s_{t+1})]. It is an estimate of a learned model: only `VisitTable`,
calibrated on rollouts, carries a probability. The bounds assume C_U exact. Where C_U is impossible
by more than an error of fitting explains, the model is wrong and a visit counts as certain.

Train this model without a penalty: VC-FB and MC-FB press F^T B down at unseen actions, which is
optimistic about costs; so is the smaller head, and here the larger one counts.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.errors import NonFiniteError, RangeError, ShapeError, UnsafeSetUnseen
from safectl.models.forward_backward import ForwardBackward
from safectl.models.networks import Backward
from safectl.models.visit_table import VisitTable
from safectl.types import Task

MIN_UNSAFE = 200
"""Unsafe observations that the data must hold; with fewer, C_U near zero means nothing."""

MIN_EFFECTIVE = 50
"""Least effective number of them, 1 / sum of p^2 over what is met with shares p: copies of one
observation are one."""

SLACK = 0.05
"""Share of 1 / (1 - gamma) by which an error of fitting may carry C_U out of [0, 1 / (1 - gamma)].
"""


_MOST_EXPONENT = 700.0
"""Of a gain: exp(709.8) is the largest float64."""


class VisitBounds(NamedTuple):
    """Ends of the discounted probability E[gamma^T] of a visit, T its time, shape (batch,).

    Attributes:
        low: 0 where C_U is impossible.
        high: 1 where C_U is impossible.
        is_possible: Where C_U is in its possible range, up to the slack; where it is not, the model
            is wrong and says nothing.
    """

    low: Float[Tensor, " batch"]
    high: Float[Tensor, " batch"]
    is_possible: Bool[Tensor, " batch"]


@torch.no_grad()
def unsafe_embedding(
    backward: Backward,
    observation: Float[Tensor, "samples nx"],
    is_unsafe: Bool[Tensor, " mask"],
) -> Float[Tensor, " nz"]:
    """Return b_U = mean over the data of 1_U(s) B(s), not rescaled.

    Raises:
        ShapeError: If the mask has another length than the observations.
        NonFiniteError: If an observation is NaN or infinite.
        UnsafeSetUnseen: If fewer than 200 observations are unsafe, or so many copies are among them
            that they count as fewer than 50.
    """
    if len(is_unsafe) != len(observation):
        got = tuple(is_unsafe.shape)
        raise ShapeError("is_unsafe", expected=(len(observation),), got=got)
    bad = int((~observation.isfinite()).sum())
    if bad:
        advice = "remove such rows from the data"
        raise NonFiniteError("observation", count=bad, size=observation.numel(), advice=advice)
    count = int(is_unsafe.sum())
    if count < MIN_UNSAFE:
        raise UnsafeSetUnseen(count=count, needed=MIN_UNSAFE)
    effective = _effective(observation[is_unsafe])
    if effective < MIN_EFFECTIVE:
        raise UnsafeSetUnseen(count=count, needed=MIN_EFFECTIVE, effective=effective)
    total: Tensor = backward(observation[is_unsafe]).sum(0)
    return total / len(observation)


def is_possible(occupancy: Float[Tensor, "*batch"], discount: float) -> Bool[Tensor, "*batch"]:
    """Return where C_U lies in [0, 1 / (1 - gamma)] up to `SLACK` of its length; NaN does not."""
    most = 1.0 / (1.0 - discount)
    return (occupancy >= -SLACK * most) & (occupancy <= (1.0 + SLACK) * most)


def visit_bounds(occupancy: Float[Tensor, " batch"], discount: float) -> VisitBounds:
    """Return (1 - gamma) C <= E[gamma^T] <= min(1, C); the left is exact if U absorbs.

    C is clipped to [0, 1 / (1 - gamma)] within the slack; beyond it the bounds are 0 and 1.
    """
    possible = is_possible(occupancy, discount)
    inside = _clipped(occupancy, discount)
    low = torch.where(possible, (1.0 - discount) * inside, torch.zeros_like(inside))
    return VisitBounds(low, inside.clamp(max=1.0), possible)


def visit_within(
    occupancy: Float[Tensor, " batch"], discount: float, steps: int
) -> Float[Tensor, " batch"]:
    """Bound the probability of a visit within H steps: gamma^-(H-1) min(1, C); 1 if impossible.

    Where gamma^-(H-1) is no float any more, it is 0 for C = 0 and 1 for any other.

    Raises:
        RangeError: If there are no steps.
    """
    if steps < 1:
        raise RangeError("steps", value=steps, expected=">= 1")
    high = visit_bounds(occupancy, discount).high
    gain = math.exp(min((1 - steps) * math.log(discount), _MOST_EXPONENT))
    return (gain * high.double()).clamp(max=1.0).to(high)


def _effective(observation: Float[Tensor, "samples nx"]) -> float:
    """Return the effective number of different rows: (sum n)^2 / sum n^2 over the copies n."""
    count = torch.unique(observation, dim=0, return_counts=True)[1].double()
    return float(count.sum().square() / count.square().sum())


def _clipped(occupancy: Tensor, discount: float) -> Tensor:
    """Clip to the possible range; what is impossible becomes the largest possible occupancy."""
    most = 1.0 / (1.0 - discount)
    inside = occupancy.clamp(0.0, most)
    return torch.where(is_possible(occupancy, discount), inside, torch.full_like(inside, most))


class VisitCritic:
    """C_U of the policy of one task, as a cost critic with one cost.

    Args:
        model: Trained without a penalty.
        task: The task that is carried out; F is the measure of its policy after the first action.
        unsafe: b_U of `unsafe_embedding`.
        discount: That of the training.

    Raises:
        ShapeError: If b_U is not that of the model.
        RangeError: If the discount is not in (0, 1).
    """

    def __init__(
        self, model: ForwardBackward, task: Task, unsafe: Float[Tensor, " nz"], *, discount: float
    ) -> None:
        if unsafe.shape != (model.sizes.nz,):
            raise ShapeError("unsafe", expected=(model.sizes.nz,), got=tuple(unsafe.shape))
        if not 0.0 < discount < 1.0:
            raise RangeError("discount", value=discount, expected="a number in (0, 1)")
        self.model, self.task, self.unsafe, self.discount = model, task, unsafe, discount

    def cost(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Float[Tensor, "batch 1"]:
        """Return C_U(s, a) by the larger head, in [0, 1 / (1 - gamma)]; its end if impossible."""
        heads = self.heads(observation, action)
        return _clipped(heads, self.discount).amax(0).unsqueeze(-1)

    def heads(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> Float[Tensor, "heads batch"]:
        """Return C_U(s, a) as each head has it; outside its possible range the model is wrong."""
        rows = self.task.vector.to(observation).expand(len(observation), -1)
        embedded: Tensor = self.model.forward(observation, action, rows)
        heads: Tensor = embedded @ self.unsafe.to(observation)
        return heads

    def value(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch 1"]:
        """Return C_U at the action of the task's policy."""
        return self.cost(observation, self.model.act(observation, self.task))

    @torch.no_grad()
    def order(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> Float[Tensor, " batch"]:
        """Return C_U(s, a) by the larger head, not clipped; infinite where a head is impossible."""
        heads = self.heads(observation, action)
        return torch.where(is_possible(heads, self.discount), heads, torch.inf).amax(0)

    @torch.no_grad()
    def bound(
        self,
        table: VisitTable,
        observation: Float[Tensor, "batch nx"],
        action: Float[Tensor, "batch nu"],
    ) -> Float[Tensor, " batch"]:
        """Return the table's bound at the larger head; 1 where a head is impossible."""
        heads = self.heads(observation, action)
        found = table.bound(heads.amax(0))
        possible = is_possible(heads, self.discount).all(0)
        return torch.where(possible, found, torch.ones_like(found))

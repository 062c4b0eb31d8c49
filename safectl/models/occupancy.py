"""How often a policy will be in an unsafe set, and what that bounds.

With b_U the mean of B over the data where they are unsafe, C_U(s, a, z) = F(s, a, z)^T b_U
estimates E[sum_t gamma^t 1_U(s_{t+1})]. It is an estimate of a learned model: only `VisitTable`,
calibrated on rollouts, carries a probability. The bounds assume C_U exact.

Train this model without a penalty: VC-FB and MC-FB press F^T B down at unseen actions, which is
optimistic about costs; so is the smaller head, and here the larger one counts.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import betaincinv
from torch import Tensor

from safectl.errors import NonFiniteError, RangeError, ShapeError, UnsafeSetUnseen
from safectl.models.forward_backward import ForwardBackward
from safectl.models.networks import Backward
from safectl.types import Task

MIN_UNSAFE = 200
"""Unsafe observations that the data must hold; with fewer, C_U near zero means nothing."""

_CONFIDENCE = 0.95


class VisitBounds(NamedTuple):
    """Ends of the discounted probability E[gamma^T] of a visit, T its time, shape (batch,)."""

    low: Float[Tensor, " batch"]
    high: Float[Tensor, " batch"]


@torch.no_grad()
def unsafe_embedding(
    backward: Backward,
    observation: Float[Tensor, "samples nx"],
    is_unsafe: Bool[Tensor, " samples"],
) -> Float[Tensor, " nz"]:
    """Return b_U = mean over the data of 1_U(s) B(s), not rescaled.

    Raises:
        UnsafeSetUnseen: If fewer than 200 observations are unsafe.
    """
    count = int(is_unsafe.sum())
    if count < MIN_UNSAFE:
        raise UnsafeSetUnseen(count=count, needed=MIN_UNSAFE)
    total: Tensor = backward(observation[is_unsafe]).sum(0)
    return total / len(observation)


def visit_bounds(occupancy: Float[Tensor, " batch"], discount: float) -> VisitBounds:
    """Return (1 - gamma) C <= E[gamma^T] <= min(1, C); the left is exact if U absorbs.

    C is clipped to [0, 1 / (1 - gamma)], outside of which the model is wrong.
    """
    possible = _possible(occupancy, discount)
    return VisitBounds((1.0 - discount) * possible, possible.clamp(max=1.0))


def visit_within(
    occupancy: Float[Tensor, " batch"], discount: float, steps: int
) -> Float[Tensor, " batch"]:
    """Bound the probability of a visit within H steps: gamma^-(H-1) min(1, C), C clipped."""
    high = visit_bounds(occupancy, discount).high
    return (discount ** (1 - steps) * high).clamp(max=1.0)


def _possible(occupancy: Tensor, discount: float) -> Tensor:
    return occupancy.clamp(0.0, 1.0 / (1.0 - discount))


@dataclass(frozen=True, slots=True, eq=False)
class VisitTable:
    """Probability of a visit by ranges of C_U, from rollouts of the policy.

    Valid for starts and tasks drawn like those of the rollouts.

    Attributes:
        edges: Ends between the ranges, ascending, shape (ranges - 1,).
        probability: Share of rollouts that visited, shape (ranges,).
        upper: One-sided 95 % bound on it (Clopper and Pearson 1934), per range, shape (ranges,).
        alarm: C_U from which an alarm misses at most a share delta of visits; see
            `calibrate_visits`.
    """

    edges: Float[Tensor, " edges"]
    probability: Float[Tensor, " ranges"]
    upper: Float[Tensor, " ranges"]
    alarm: float

    def bound(self, occupancy: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the upper bound on the probability of a visit; 1 where C_U is not finite."""
        found = self.upper.to(occupancy)[torch.bucketize(occupancy, self.edges.to(occupancy))]
        return torch.where(occupancy.isfinite(), found, torch.ones_like(found))

    def estimate(self, occupancy: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the share of calibration rollouts of the same range that visited."""
        return self.probability.to(occupancy)[torch.bucketize(occupancy, self.edges.to(occupancy))]


def calibrate_visits(
    occupancy: Float[Tensor, " rollouts"],
    visited: Bool[Tensor, " rollouts"],
    *,
    delta: float = 0.05,
    ranges: int = 10,
) -> VisitTable:
    """Count visits by equally filled ranges of C_U, and set the alarm conformally.

    The alarm is the k-th smallest C_U among the n rollouts that visited, k = floor(delta (n + 1)):
    a further rollout that visits, exchangeable with them, lies below it with probability at most
    delta. Where k is 0, every C_U raises it.

    Args:
        occupancy: C_U at the start of held-out rollouts.
        visited: Whether each visited U within the horizon.
        delta: Share of visits that the alarm may miss, in (0, 1).
        ranges: Number of ranges; empty ones are joined.

    Raises:
        RangeError: If delta is out of range, or there are fewer rollouts than ten per range.
        NonFiniteError: If a C_U is NaN or infinite.
    """
    if not 0.0 < delta < 1.0:
        raise RangeError("delta", value=delta, expected="a number in (0, 1)")
    if len(occupancy) < 10 * ranges:
        expected = f"at least {10 * ranges} for {ranges} ranges"
        raise RangeError("calibration rollouts", value=len(occupancy), expected=expected)
    bad = int((~occupancy.isfinite()).sum())
    if bad:
        advice = "a model that gives such values bounds nothing; train it again"
        raise NonFiniteError("occupancy", count=bad, size=len(occupancy), advice=advice)
    levels = torch.arange(1, ranges, device=occupancy.device) / ranges
    edges = torch.unique_consecutive(torch.quantile(occupancy, levels.to(occupancy)))
    where = torch.bucketize(occupancy, edges)
    count = torch.bincount(where, minlength=len(edges) + 1).to(occupancy)
    hits = torch.bincount(where, visited.to(occupancy), minlength=len(edges) + 1).to(occupancy)
    share = hits / count.clamp(min=1.0)
    scores = occupancy[visited].sort().values
    k = int(delta * (len(scores) + 1))
    return VisitTable(edges, share, _upper(hits, count), float(scores[k - 1]) if k else -torch.inf)


def _upper(hits: Tensor, count: Tensor) -> Tensor:
    """Return the one-sided 95 % bound of Clopper and Pearson; 1 where all or none were counted."""
    seen, missed = (part.cpu().double().numpy() for part in (hits, count - hits))
    found = betaincinv(seen + 1.0, np.maximum(missed, 1.0), _CONFIDENCE)
    return torch.from_numpy(np.where(missed > 0.0, found, 1.0)).to(hits)


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
        """Return C_U(s, a) by the larger head, clipped to [0, 1 / (1 - gamma)]."""
        return _possible(self.unclipped(observation, action), self.discount)

    def unclipped(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> Float[Tensor, "batch 1"]:
        """Return C_U(s, a) as the model has it; outside its possible range the model is wrong."""
        rows = self.task.vector.to(observation).expand(len(observation), -1)
        embedded: Tensor = self.model.forward(observation, action, rows)
        heads = embedded @ self.unsafe.to(observation)
        return heads.amax(0).unsqueeze(-1)

    def value(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch 1"]:
        """Return C_U at the action of the task's policy."""
        return self.cost(observation, self.model.act(observation, self.task))

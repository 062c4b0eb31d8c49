"""How often rollouts visited an unsafe set, by ranges of the occupancy that a model predicted."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import betaincinv
from torch import Tensor

from safectl.errors import NonFiniteError, RangeError

_CONFIDENCE = 0.95

_LEAST = 50
"""Rollouts that a halved range keeps; without a visit among them its bound is about a tenth."""


@dataclass(frozen=True, slots=True, eq=False)
class VisitTable:
    """Probability of a visit by ranges of C_U, from rollouts of the policy.

    Valid for starts and tasks drawn like those of the rollouts.

    Attributes:
        edges: Ends between the ranges, ascending, shape (ranges - 1,).
        probability: Share of rollouts that visited, shape (ranges,).
        upper: Bounds on it, shape (ranges,), which hold together with confidence 95 % (Clopper and
            Pearson 1934, Bonferroni) and do not fall from one range to the next.
        alarm: C_U from which an alarm misses at most a share delta of visits; see
            `calibrate_visits`.

    Raises:
        RangeError: If the edges do not ascend, a share or bound is none, or the bounds fall.
    """

    edges: Float[Tensor, " edges"]
    probability: Float[Tensor, " ranges"]
    upper: Float[Tensor, " ranges"]
    alarm: float

    def __post_init__(self) -> None:
        if not bool((self.edges.diff() > 0.0).all() & self.edges.isfinite().all()):
            raise RangeError("edges", value=self.edges.tolist(), expected="finite and ascending")
        for name in ("probability", "upper"):
            found = getattr(self, name)
            if not bool(((found >= 0.0) & (found <= 1.0)).all()):
                raise RangeError(name, value=found.tolist(), expected="numbers in [0, 1]")
        if bool((self.upper.diff() < 0.0).any()):
            raise RangeError("upper", value=self.upper.tolist(), expected="bounds that do not fall")
        if math.isnan(self.alarm):
            raise RangeError("alarm", value=self.alarm, expected="a number")

    def bound(self, occupancy: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the upper bound on the probability of a visit; 1 where C_U is not finite."""
        found = self.upper.to(occupancy)[torch.bucketize(occupancy, self.edges.to(occupancy))]
        return torch.where(occupancy.isfinite(), found, torch.ones_like(found))

    def threshold(self, limit: float) -> float:
        """Return the C_U up to which all bounds are within a limit; infinite for none and all."""
        within = int((self.upper <= limit).long().cumprod(0).sum())
        if within == len(self.upper):
            return torch.inf
        return float(self.edges[within - 1]) if within else -torch.inf

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
    """Count visits by ranges of C_U, and set the alarm conformally.

    The ranges are filled equally, but the last one is halved again and again while each half keeps
    50 rollouts, so that those of largest C_U, where visits are, are counted apart. The ends depend
    on C_U alone and not on what visited, so the bounds of Clopper and Pearson hold.

    The alarm is the k-th smallest C_U among the n rollouts that visited, k = floor(delta (n + 1)):
    a further rollout that visits, exchangeable with them, lies below it with probability at most
    delta. Where k is 0, every C_U raises it.

    Args:
        occupancy: C_U at the start of held-out rollouts.
        visited: Whether each visited U within the horizon.
        delta: Share of visits that the alarm may miss, in (0, 1).
        ranges: Number of ranges before the last is halved; empty ones are joined.

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
    levels = occupancy.new_tensor(_levels(len(occupancy), ranges))
    edges = torch.unique_consecutive(torch.quantile(occupancy, levels))
    where = torch.bucketize(occupancy, edges)
    count = torch.bincount(where, minlength=len(edges) + 1).to(occupancy)
    hits = torch.bincount(where, visited.to(occupancy), minlength=len(edges) + 1).to(occupancy)
    share = hits / count.clamp(min=1.0)
    upper = _upper(hits, count).cummax(0).values
    scores = occupancy[visited].sort().values
    k = int(delta * (len(scores) + 1))
    return VisitTable(edges, share, upper, float(scores[k - 1]) if k else -torch.inf)


class VisitScores(NamedTuple):
    """How a table did on rollouts that it has not seen.

    Attributes:
        rollouts: How many.
        visits: Share of them that visited.
        ece: Expected calibration error: mean over rollouts of |estimate - share that visited| of
            their range.
        coverage: Share of rollouts in whose range no greater share visited than its bound says.
        missed: Share of visits below the alarm.
        brier: Mean square of estimate minus outcome.
        skill: 1 - brier over that of the share of all rollouts that visited, said of each: 1 for a
            prophet, 0 or less for a table that tells nothing apart; 0 where all or none visited.
    """

    rollouts: int
    visits: float
    ece: float
    coverage: float
    missed: float
    brier: float
    skill: float


def score_visits(
    table: VisitTable,
    occupancy: Float[Tensor, " rollouts"],
    visited: Bool[Tensor, " rollouts"],
) -> VisitScores:
    """Compare a table with held-out rollouts."""
    where, hit = torch.bucketize(occupancy, table.edges.to(occupancy)), visited.double()
    count = torch.bincount(where, minlength=len(table.upper)).double()
    share = torch.bincount(where, hit, minlength=len(table.upper)) / count.clamp(min=1.0)
    weight = count / count.sum()
    error = (table.probability.to(share) - share).abs()
    covered = (share <= table.upper.to(share)).double()
    brier = float((table.estimate(occupancy).to(hit) - hit).square().mean())
    spread = float(hit.var(correction=0))
    return VisitScores(
        rollouts=len(visited),
        visits=float(hit.mean()),
        ece=float((weight * error).sum()),
        coverage=float((weight * covered).sum()),
        missed=float((occupancy[visited] < table.alarm).double().mean()) if visited.any() else 0.0,
        brier=brier,
        skill=1.0 - brier / spread if spread else 0.0,
    )


def _levels(count: int, ranges: int) -> list[float]:
    """Return the shares of `count` rollouts at which a range ends."""
    levels, rest = [k / ranges for k in range(1, ranges)], 1.0 / ranges
    while count * rest / 2.0 >= _LEAST:
        rest /= 2.0
        levels.append(1.0 - rest)
    return levels


def _upper(hits: Tensor, count: Tensor) -> Tensor:
    """Return one-sided bounds of Clopper and Pearson; 1 where all or none were counted."""
    each = 1.0 - (1.0 - _CONFIDENCE) / len(count)
    seen, missed = (part.cpu().double().numpy() for part in (hits, count - hits))
    found = betaincinv(seen + 1.0, np.maximum(missed, 1.0), each)
    return torch.from_numpy(np.where(missed > 0.0, found, 1.0)).to(hits)

"""Filtering by constraints A u >= b: what the safety layer and sets stated in CVXPY share."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.safeguards.evidence import (
    Candidate,
    Limits,
    at_the_door,
    blind,
    decide,
    evidence,
)
from safectl.safeguards.fallback import Fallback, fallback_action
from safectl.solve import project
from safectl.types import Decision

BACKOFF_ULPS = 256.0
"""Corrections aim this many units of rounding (of the size of the terms) inside a constraint. The
projection may violate a row by 64; the rest covers computing A and b in another batch."""


class Rows(NamedTuple):
    """Constraints A u >= b per row of the batch, and how large the terms are that make up b.

    Attributes:
        normals: A, shape (batch, m, nu).
        offsets: b, shape (batch, m).
        size: Sum of the magnitudes that b was computed from, shape (batch, m).
    """

    normals: Float[Tensor, "batch m nu"]
    offsets: Float[Tensor, "batch m"]
    size: Float[Tensor, "batch m"]


def filter_linear(
    observation: Float[Tensor, "batch nx"],
    action: Float[Tensor, "batch nu"],
    rows: Rows,
    limits: Limits,
    fallback: Fallback,
    *,
    start: Float[Tensor, "batch nu"],
    seen: Bool[Tensor, " batch"],
    usable: Bool[Tensor, " batch"],
    risk: float,
) -> Decision:
    """Return the action nearest to `start` with A u >= b within the limits, or the fallback.

    Args:
        observation: For the fallback only.
        action: Proposals.
        rows: The constraints at these observations.
        limits: Of the action.
        fallback: Taken where the constraints cannot be met.
        start: What is projected: the proposals, or the proposals within the limits.
        seen: Rows with a finite observation.
        usable: Rows with a finite observation and a finite proposal.
        risk: Of an action that meets the constraints.
    """
    proposal = at_the_door(usable, start)
    kept = _evaluate(proposal, rows, limits, risk)
    certified = usable & (kept.residual == 0.0)
    if bool(certified.all()):
        return decide(action, kept, kept, limits=limits, usable=usable)
    reach = torch.maximum(limits.low.abs(), limits.high.abs())
    size = rows.size + (rows.normals.abs() * reach).sum(-1)
    backoff = BACKOFF_ULPS * torch.finfo(action.dtype).eps * size
    answer = project(proposal, rows.normals, rows.offsets + backoff, *limits)
    point = torch.where(certified.unsqueeze(-1), proposal, answer.point)
    candidate = _evaluate(point, rows, limits, risk)
    last_resort = _evaluate(fallback_action(fallback, observation, limits), rows, limits, risk)
    return decide(action, candidate, blind(last_resort, seen), limits=limits, usable=usable)


def _evaluate(action: Tensor, rows: Rows, limits: Limits, risk: float) -> Candidate:
    room = (rows.normals @ action.unsqueeze(-1)).squeeze(-1) - rows.offsets
    return evidence(action, room, limits, risk=risk)

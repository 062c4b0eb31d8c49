"""From candidate actions and their recomputed evidence to one decision."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.spec import Spec
from safectl.types import Certificate, Decision, Status


class Limits(NamedTuple):
    """Lower and upper action limits, shape (nu,), in the units of the action signals."""

    low: Float[Tensor, " nu"]
    high: Float[Tensor, " nu"]


class Candidate(NamedTuple):
    """Actions (batch, nu) with margin, residual and risk (batch,), recomputed from the actions."""

    action: Float[Tensor, "batch nu"]
    margin: Float[Tensor, " batch"]
    residual: Float[Tensor, " batch"]
    risk: Float[Tensor, " batch"]


def action_limits(spec: Spec, like: Tensor) -> Limits:
    """Return the action limits on the device and with the dtype of `like`."""
    return Limits(like.new_tensor(spec.action_low), like.new_tensor(spec.action_high))


def finite_rows(values: Float[Tensor, "batch n"]) -> Bool[Tensor, " batch"]:
    """Return which rows hold no NaN and no infinity."""
    return values.isfinite().all(-1)


def at_the_door(rows: Bool[Tensor, " batch"], values: Float[Tensor, "batch n"]) -> Tensor:
    """Replace the rows that are not to be used by zeros, shape (batch, n)."""
    return torch.where(rows.unsqueeze(-1), values, torch.zeros_like(values))


def smallest(values: Float[Tensor, "batch m"]) -> Float[Tensor, " batch"]:
    """Return the smallest entry of each row; infinity where there are no constraints."""
    if values.shape[-1] == 0:
        return values.new_full((len(values),), torch.inf)
    return values.amin(-1)


def evidence(
    action: Float[Tensor, "batch nu"],
    room: Float[Tensor, "batch m"],
    limits: Limits,
    *,
    risk: float = 0.0,
) -> Candidate:
    """Condense the constraint values at an action.

    Args:
        action: Shape (batch, nu).
        room: Constraint values at the action, shape (batch, m); below zero means violated.
        limits: Of the action.
        risk: Where every constraint and limit holds; elsewhere it is 1.

    Returns:
        A `Candidate`. A value that cannot be computed counts as the worst one: margin minus
        infinity, residual infinity.
    """
    margin = smallest(room).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    outside = torch.maximum(limits.low - action, action - limits.high).amax(-1)
    residual = torch.maximum(outside, -margin).clamp(min=0.0)
    residual = residual.nan_to_num(nan=torch.inf, posinf=torch.inf)
    holds = residual == 0.0
    return Candidate(action, margin, residual, torch.where(holds, risk, 1.0).to(margin))


def blind(fallback: Candidate, seen: Bool[Tensor, " batch"]) -> Candidate:
    """Withdraw the evidence of fallbacks in rows whose observation was not usable."""
    return Candidate(
        fallback.action,
        torch.where(seen, fallback.margin, -torch.inf),
        torch.where(seen, fallback.residual, torch.inf),
        torch.where(seen, fallback.risk, 1.0),
    )


def decide(
    proposal: Float[Tensor, "batch nu"],
    candidate: Candidate,
    fallback: Candidate,
    *,
    certified: Bool[Tensor, " batch"],
) -> Decision:
    """Take the candidate where it is certified, the fallback elsewhere, and say which.

    A certified row whose candidate equals the proposal is `KEPT` and returns the proposal's bits.
    """
    kept = certified & (candidate.action == proposal).all(-1)
    action = torch.where(certified.unsqueeze(-1), candidate.action, fallback.action)
    status = torch.where(kept, Status.KEPT.value, Status.CORRECTED.value)
    status = torch.where(certified, status, Status.FALLBACK.value).to(torch.int8)
    return Decision(
        torch.where(kept.unsqueeze(-1), proposal, action),
        Certificate(
            status,
            torch.where(certified, candidate.margin, fallback.margin),
            torch.where(certified, candidate.risk, fallback.risk),
            torch.where(certified, candidate.residual, fallback.residual),
        ),
    )

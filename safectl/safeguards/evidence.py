"""From candidate actions and their recomputed evidence to one decision."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Shaped
from numpy.typing import NDArray
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.spec import Spec
from safectl.types import Certificate, Decision, Status


class Limits(NamedTuple):
    """Lower and upper action limits, shape (nu,) or (batch, nu), in units of the action signals."""

    low: Float[Tensor, "*batch nu"]
    high: Float[Tensor, "*batch nu"]


class Candidate(NamedTuple):
    """Actions (batch, nu) with margin, residual and risk (batch,), recomputed from the actions."""

    action: Float[Tensor, "batch nu"]
    margin: Float[Tensor, " batch"]
    residual: Float[Tensor, " batch"]
    risk: Float[Tensor, " batch"]


def action_limits(spec: Spec, like: Tensor) -> Limits:
    """Return the action limits on the device and with the dtype of `like`."""
    return Limits(like.new_tensor(spec.action_low), like.new_tensor(spec.action_high))


def check_batch(
    spec: Spec,
    observation: Shaped[Tensor, "..."],
    action: Shaped[Tensor, "..."],
    *,
    width: int | None = None,
) -> None:
    """Refuse what no safeguard may broadcast or cast; every `filter` calls this first.

    Args:
        spec: Gives nu.
        observation: Shape (batch, width).
        action: Shape (batch, nu), in the dtype of the observation.
        width: What the safeguard reads in a row: nx, or the states of its model; any if absent.

    Raises:
        ShapeError: If a width is wrong, or the numbers of rows differ.
        RangeError: If a dtype is not floating point, or they differ.
    """
    expected: tuple[int | str, ...] = ("batch", "nx" if width is None else width)
    if observation.ndim != 2 or width not in {None, observation.shape[1]}:
        raise ShapeError("observation", expected=expected, got=tuple(observation.shape))
    if action.shape != (len(observation), spec.nu):
        raise ShapeError("action", expected=(len(observation), spec.nu), got=tuple(action.shape))
    if not observation.is_floating_point() or action.dtype != observation.dtype:
        kinds = (str(observation.dtype), str(action.dtype))
        expected_kinds = "one floating-point dtype for both"
        raise RangeError("dtypes of observation and action", value=kinds, expected=expected_kinds)


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
    risk: float | Float[Tensor, " batch"] = 0.0,
) -> Candidate:
    """Condense the constraint values at an action.

    Args:
        action: Shape (batch, nu).
        room: Constraint values at the action, shape (batch, m); below zero means violated.
        limits: Of the action.
        risk: Where every constraint and limit holds; elsewhere it is 1.

    Returns:
        A `Candidate`. A value that cannot be computed, NaN or infinity of either sign, counts as
        the worst one: margin minus infinity, residual infinity.
    """
    worst = -torch.inf
    margin = smallest(room.nan_to_num(nan=worst, posinf=worst, neginf=worst))
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


def decide_row(
    proposal: Float32[NDArray[np.float32], " nu"],
    action: Float32[NDArray[np.float32], " nu"],
    margin: float,
    limits: tuple[NDArray[np.float32], NDArray[np.float32]],
    *,
    risk: float = 0.0,
    recovers: bool = False,
) -> Decision | None:
    """Decide one row as `decide` does, in a tenth of its time; None where that has to decide.

    Args:
        proposal: What the row asked for, finite.
        action: What is to be returned.
        margin: The smallest constraint value at that action, recomputed from it.
        limits: Lower and upper limits of the action.
        risk: As in `evidence`.
        recovers: Whether the action is also the fallback, where it is not certified.
    """
    inside = bool((action >= limits[0]).all() and (action <= limits[1]).all())
    certified = margin >= 0.0  # NaN is not
    if not (inside and (certified or recovers) and math.isfinite(margin)):
        return None
    kept = certified and bool((action == proposal).all())
    status = Status.KEPT if kept else Status.CORRECTED if certified else Status.FALLBACK
    row = torch.from_numpy((proposal if kept else action)[None].copy())
    certificate = Certificate(
        torch.tensor([status.value], dtype=torch.int8),
        row.new_tensor([margin]),
        row.new_tensor([risk if certified else 1.0]),
        row.new_tensor([max(0.0, -margin)]),
    )
    return Decision(row, certificate)


def within(action: Float[Tensor, "batch nu"], limits: Limits) -> Float[Tensor, "batch nu"]:
    """Clip to the limits; the middle of the limits replaces every row that is not finite."""
    middle = limits.low + 0.5 * (limits.high - limits.low)
    return torch.where(finite_rows(action).unsqueeze(-1), action, middle).clamp(*limits)


def decide(
    proposal: Float[Tensor, "batch nu"],
    candidate: Candidate,
    fallback: Candidate,
    *,
    limits: Limits,
    usable: Bool[Tensor, " batch"],
) -> Decision:
    """Take the candidate where its evidence certifies it, the fallback elsewhere, and say which.

    A row is certified if it is usable, its action finite, its margin not negative and its residual
    zero. If the candidate then equals the proposal it is `KEPT` and returns the proposal's bits. A
    fallback outside the limits, or not finite, is replaced by `within` and loses its evidence; its
    risk is always 1.

    Args:
        proposal: What the row asked for.
        candidate: What is to be returned where it is certified.
        fallback: What is returned elsewhere.
        limits: Of the action.
        usable: Rows whose inputs are finite, and whatever else the safeguard asks for.
    """
    certified = usable & finite_rows(candidate.action)
    certified = certified & (candidate.margin >= 0.0) & (candidate.residual == 0.0)
    last = within(fallback.action, limits)
    fallback = blind(fallback, (last == fallback.action).all(-1))
    margin = torch.where(fallback.margin.isnan(), -torch.inf, fallback.margin)
    residual = torch.where(fallback.residual.isnan(), torch.inf, fallback.residual)
    kept = certified & (candidate.action == proposal).all(-1)
    action = torch.where(certified.unsqueeze(-1), candidate.action, last)
    status = torch.where(kept, Status.KEPT.value, Status.CORRECTED.value)
    status = torch.where(certified, status, Status.FALLBACK.value).to(torch.int8)
    return Decision(
        torch.where(kept.unsqueeze(-1), proposal, action),
        Certificate(
            status,
            torch.where(certified, candidate.margin, margin),
            torch.where(certified, candidate.risk, 1.0),
            torch.where(certified, candidate.residual, residual),
        ),
    )

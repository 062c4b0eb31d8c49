"""Several safeguards in order, with one certificate."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from safectl.errors import RangeError
from safectl.safeguards.evidence import (
    Candidate,
    action_limits,
    at_the_door,
    check_batch,
    decide,
    finite_rows,
)
from safectl.safeguards.fallback import Fallback, fallback_action
from safectl.types import Decision, Safeguard, Status


class _Sweep(NamedTuple):
    """What one pass through all safeguards did: actions, and their evidence taken together."""

    action: Tensor  # (batch, nu)
    agreed: Tensor  # (batch,), every safeguard kept the action
    fell_back: Tensor  # (batch,), some safeguard could not certify anything
    margin: Tensor
    risk: Tensor
    residual: Tensor


class Chain:
    """Passes an action through several safeguards until all of them keep it.

    A later safeguard may undo an earlier one, so the pass is repeated; a row is certified only if
    in one and the same pass every safeguard kept its action. The certificate then holds for exactly
    this action: the smallest margin, the largest residual, and the sum of the risks (a union
    bound, at most 1). A row on which they do not agree in time takes the chain's own fallback. Its
    margin is known only if every safeguard keeps the fallback; otherwise it is reported as minus
    infinity. A row that some safeguard led to its fallback is marked `FALLBACK` even if all agree
    on that action in the end.

    Not promised: the nearest action that all of them would keep; alternating corrections find an
    admissible one.

    Args:
        safeguards: At least one, in order.
        fallback: For rows on which they do not agree.
        sweeps: Passes, including the last one, which must change nothing.

    Raises:
        RangeError: If there is no safeguard, or fewer than two sweeps.
    """

    def __init__(self, *safeguards: Safeguard, fallback: Fallback, sweeps: int = 4) -> None:
        if not safeguards:
            raise RangeError("safeguards", value=(), expected="at least one safeguard")
        if sweeps < 2:
            raise RangeError("sweeps", value=sweeps, expected="at least 2: correct, then check")
        self.safeguards, self.fallback, self.sweeps = safeguards, fallback, sweeps

    @property
    def claim(self) -> str:
        """All claims together."""
        return "; and ".join(safeguard.claim for safeguard in self.safeguards)

    def filter(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Correct and re-check; one call of every safeguard per sweep.

        Raises:
            ShapeError, RangeError: As `check_batch`, and as the safeguards.
        """
        check_batch(self.fallback.spec, observation, action)
        seen = finite_rows(observation)
        sweep = self._pass(observation, action)
        fell_back = sweep.fell_back
        for _ in range(self.sweeps - 1):
            if bool(sweep.agreed.all()):
                break
            settled, last = sweep.agreed, sweep
            sweep = _merge(settled, last, self._pass(observation, last.action))
            fell_back = fell_back | (sweep.fell_back & ~settled)
        agreed = sweep.agreed & seen & finite_rows(action)
        last = sweep
        if not bool(agreed.all()):
            last = _merge(agreed, sweep, self._fall_back(observation, seen))
        usable = agreed & ((sweep.action == action).all(-1) | ~fell_back)
        limits = action_limits(self.fallback.spec, action)
        return decide(action, _evidence(sweep), _evidence(last), limits=limits, usable=usable)

    def reset(self, rows: Bool[Tensor, " batch"], /) -> None:
        """Forget the marked rows in every safeguard that remembers: a new episode begins there."""
        for safeguard in self.safeguards:
            forget = getattr(safeguard, "reset", None)
            if forget is not None:
                forget(rows)

    def _pass(self, observation: Tensor, action: Tensor) -> _Sweep:
        start = at_the_door(finite_rows(action), action)
        statuses, certificates = [], []
        for safeguard in self.safeguards:
            action, certificate = safeguard.filter(observation, action)
            statuses.append(certificate.status)
            certificates.append(certificate)
        status = torch.stack(statuses)
        return _Sweep(
            action,
            (status == Status.KEPT.value).all(0) & (action == start).all(-1),
            (status == Status.FALLBACK.value).any(0),
            torch.stack([certificate.margin for certificate in certificates]).amin(0),
            torch.stack([certificate.risk for certificate in certificates]).sum(0).clamp(max=1.0),
            torch.stack([certificate.residual for certificate in certificates]).amax(0),
        )

    def _fall_back(self, observation: Tensor, seen: Tensor) -> _Sweep:
        limits = action_limits(self.fallback.spec, observation)
        action = fallback_action(self.fallback, observation, limits)
        checked = self._pass(observation, action)
        known = checked.agreed & seen
        return checked._replace(
            action=action,
            margin=torch.where(known, checked.margin, -torch.inf),
            risk=torch.where(known, checked.risk, 1.0),
            residual=torch.where(known, checked.residual, torch.inf),
        )


def _merge(rows: Tensor, one: _Sweep, other: _Sweep) -> _Sweep:
    pairs = zip(one, other, strict=True)
    return _Sweep(
        *(torch.where(rows.unsqueeze(-1) if a.ndim > 1 else rows, a, b) for a, b in pairs)
    )


def _evidence(sweep: _Sweep) -> Candidate:
    return Candidate(sweep.action, sweep.margin, sweep.residual, sweep.risk)

"""Damped quasi-Newton steps (BFGS) on 1/2 |a - a~|^2 + rho sum_i max(excess_i(a), 0)^2, batched."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

CURVED = 0.2
"""Powell's damping: least y.s as a share of s.B s, so that the approximation stays positive."""


class Curvature(NamedTuple):
    """What a row has learned of the objective; points and gradients are those of its last step.

    Attributes:
        start: a~, shape (batch, nu).
        hessian: B, shape (batch, nu, nu).
        point: Shape (batch, nu).
        gradient: Shape (batch, nu).
    """

    start: Float[Tensor, "batch nu"]
    hessian: Float[Tensor, "batch nu nu"]
    point: Float[Tensor, "batch nu"]
    gradient: Float[Tensor, "batch nu"]

    def select(self, rows: Bool[Tensor, " batch"]) -> "Curvature":
        """Keep the marked rows."""
        return Curvature(*(part[rows] for part in self))


def quasi_newton_step(
    known: Curvature | None,
    start: Float[Tensor, "batch nu"],
    point: Float[Tensor, "batch nu"],
    excess: Float[Tensor, "batch m"],
    slopes: Float[Tensor, "batch m nu"],
    penalty: float,
) -> tuple[Float[Tensor, "batch nu"], Curvature]:
    """Return the step -B^-1 grad, and what is known then.

    The first B is the Gauss-Newton one, I + 2 rho sum_i g_i g_i^T over the violated costs.

    Args:
        known: From the last step; None in the first.
        start: a~, the proposals within their limits.
        point: Where the excess and its gradients were taken.
        excess: Costs minus bounds.
        slopes: Their gradients by the action.
        penalty: rho.
    """
    positive = excess.clamp(min=0.0).unsqueeze(-1)
    gradient = (point - start) + 2.0 * penalty * (positive * slopes).sum(1)
    if known is None:
        violated = slopes * (positive > 0.0)
        identity = torch.eye(point.shape[1], dtype=point.dtype, device=point.device)
        hessian = identity + 2.0 * penalty * violated.transpose(1, 2) @ violated
    else:
        hessian = _update(known.hessian, point - known.point, gradient - known.gradient)
    move = -torch.linalg.solve_ex(hessian, gradient.unsqueeze(-1))[0].squeeze(-1)
    return move, Curvature(start, hessian, point, gradient)


def _update(hessian: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """Return the damped BFGS update of B: B - B s s^T B / s^T B s + r r^T / s^T r."""
    s, y = step.unsqueeze(-1), change.unsqueeze(-1)
    along = hessian @ s
    curvature = (s * along).sum(1, keepdim=True)
    product = (s * y).sum(1, keepdim=True)
    share = (1.0 - CURVED) * curvature / (curvature - product)
    damped = torch.where(product < CURVED * curvature, share, 1.0)
    r = damped * y + (1.0 - damped) * along
    updated = hessian - along @ along.transpose(1, 2) / curvature
    updated = updated + r @ r.transpose(1, 2) / (s * r).sum(1, keepdim=True)
    usable = (curvature > 0.0) & updated.isfinite().flatten(1).all(-1).reshape(-1, 1, 1)
    return torch.where(usable, updated, hessian)

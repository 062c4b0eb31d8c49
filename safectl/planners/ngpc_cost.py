"""Predictions over the horizon and the cost of a plan, with exact gradient and Hessian, in torch.

The tangents run through the network and through the outputs that it is fed back, so the
derivatives are those of the whole horizon. Cost per predicted sample of a network with W weights
and nz decisions: W, nz W for the gradient and nz (nz + 1) / 2 W for the curvature of Newton.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.planners.forward_model import ForwardModel, Jet
from safectl.planners.ngpc_problem import NgpcProblem


class Context(NamedTuple):
    """What is known at sample n, before the plan.

    Attributes:
        inputs: u(n), u(n-1), ..., shape (batch, past, m).
        outputs: y(n), y(n-1), ..., shape (batch, dd, p).
        sensors: Shape (batch, sensors).
        disturbance: Added to every predicted output, shape (batch, p).
        reference: Targets of the samples N1..N2, shape (batch, N2 - N1 + 1, p).
    """

    inputs: Float[Tensor, "batch past m"]
    outputs: Float[Tensor, "batch dd p"]
    sensors: Float[Tensor, "batch sensors"]
    disturbance: Float[Tensor, "batch p"]
    reference: Float[Tensor, "batch rows p"]


class Derivatives(NamedTuple):
    """Gradient (batch, nz) and Hessian (batch, nz, nz) of the cost by the plan."""

    gradient: Float[Tensor, "batch nz"]
    hessian: Float[Tensor, "batch nz nz"]


def predict(
    problem: NgpcProblem,
    model: ForwardModel,
    context: Context,
    plan: Float[Tensor, "batch Nu m"],
    *,
    has_curvature: bool,
    samples: int | None = None,
) -> list[Jet]:
    """Return the predictions of y(n+1), ..., y(n+N2) with their tangents by the plan.

    Args:
        problem: Sizes and horizons.
        model: The network.
        context: What is known at sample n.
        plan: u(n+1) ... u(n+Nu), shape (batch, Nu, m).
        has_curvature: Whether second tangents are wanted.
        samples: Predict so many samples instead of N2.
    """
    batch, nz = plan.shape[0], problem.decisions
    seeds = torch.eye(nz).to(plan).view(nz, problem.control, problem.inputs)
    predicted: list[Jet] = []
    for k in range(1, (samples or problem.last) + 1):
        parts = []
        for lag in range(problem.input_lags):
            if k - lag >= 1:
                j = min(k - lag, problem.control) - 1
                parts.append(_jet(plan[:, j], seeds[:, j].expand(batch, -1, -1), has_curvature))
            else:
                parts.append(_constant(context.inputs[:, lag - k], nz, has_curvature))
        for lag in range(1, problem.output_lags + 1):
            if k - lag >= 1:
                parts.append(predicted[k - lag - 1])
            else:
                parts.append(_constant(context.outputs[:, lag - k], nz, has_curvature))
        parts.append(_constant(context.sensors, nz, has_curvature))
        output = model.jet(_concatenate(parts))
        predicted.append(output._replace(value=output.value + context.disturbance))
    return predicted


def cost(
    problem: NgpcProblem,
    model: ForwardModel,
    context: Context,
    plan: Float[Tensor, "batch Nu m"],
) -> Float[Tensor, " batch"]:
    """Return J of `NgpcProblem`; infinite where the plan touches the barrier."""
    tracking, effort = _weights(problem, plan)
    predicted = predict(problem, model, context, plan, has_curvature=False)
    values = torch.stack([jet.value for jet in predicted[problem.first - 1 :]], 1)
    error = context.reference - values
    moves = _moves(context, plan)
    total = torch.einsum("bkp,pq,bkq->b", error, tracking, error)
    total = total + torch.einsum("bjm,mn,bjn->b", moves, effort, moves)
    if problem.sharpness == 0.0:
        return total
    s, width = problem.sharpness, torch.as_tensor(problem.barrier_range).to(plan)
    below, above = _barrier_distances(problem, plan)
    barrier = (s / below + s / above - 4.0 * s / width).sum((1, 2))
    inside = ((below > 0) & (above > 0)).all(2).all(1)
    return torch.where(inside, total + barrier, torch.inf)


def derivatives(
    problem: NgpcProblem,
    model: ForwardModel,
    context: Context,
    plan: Float[Tensor, "batch Nu m"],
) -> Derivatives:
    """Return gradient and Hessian of the cost by the plan, flattened sample by sample.

    With e(k) the error, Y(k) = d prediction / dz and D(j) = d du(j) / dz:

        gradient = -2 sum_k Y(k)' Q e(k) + 2 sum_j D(j)' L du(j) + barrier'
        Hessian  =  2 sum_k Y(k)' Q Y(k) + 2 sum_j D(j)' L D(j) + diag(barrier'')
                  - 2 sum_k sum_i (Q e(k))_i d2 prediction_i / dz dz     (Newton only)
    """
    tracking, effort = _weights(problem, plan)
    batch, nz = plan.shape[0], problem.decisions
    gradient = plan.new_zeros(batch, nz)
    hessian = plan.new_zeros(batch, nz, nz)
    predicted = predict(problem, model, context, plan, has_curvature=problem.has_curvature)
    for row, jet in enumerate(predicted[problem.first - 1 :]):
        weighted = (context.reference[:, row] - jet.value) @ tracking
        gradient = gradient - 2.0 * torch.einsum("bzp,bp->bz", jet.first, weighted)
        hessian = hessian + 2.0 * jet.first @ tracking @ jet.first.transpose(1, 2)
        if jet.second is not None:
            hessian = hessian - 2.0 * torch.einsum("bzwp,bp->bzw", jet.second, weighted)
    difference = _difference(problem, plan)
    pull = torch.einsum("bjm,mn->bjn", _moves(context, plan), effort).flatten(1)
    gradient = gradient + 2.0 * pull @ difference
    spread = torch.kron(torch.eye(problem.control).to(plan), effort)
    hessian = hessian + 2.0 * difference.T @ spread @ difference
    if problem.sharpness > 0.0:
        s = problem.sharpness
        below, above = (distance.flatten(1) for distance in _barrier_distances(problem, plan))
        gradient = gradient + s / above**2 - s / below**2
        hessian = hessian + torch.diag_embed(2.0 * s / below**3 + 2.0 * s / above**3)
    return Derivatives(gradient, hessian)


def _barrier_distances(
    problem: NgpcProblem, plan: Float[Tensor, "batch Nu m"]
) -> tuple[Float[Tensor, "batch Nu m"], Float[Tensor, "batch Nu m"]]:
    """Return u + r/2 - b and r/2 + b - u; both are above zero inside the barrier."""
    half = torch.as_tensor(0.5 * problem.barrier_range).to(plan)
    centre = torch.as_tensor(problem.barrier_centre).to(plan)
    return plan + half - centre, half + centre - plan


def _weights(problem: NgpcProblem, like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(problem.tracking).to(like), torch.as_tensor(problem.effort).to(like)


def _moves(context: Context, plan: Tensor) -> Tensor:
    return plan - torch.cat([context.inputs[:, :1], plan[:, :-1]], 1)


def _difference(problem: NgpcProblem, like: Tensor) -> Tensor:
    """D: the identity with minus one, one sample below it; shape (nz, nz)."""
    size, m = problem.decisions, problem.inputs
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    return identity - torch.diag(identity.new_ones(size - m), -m)


def _jet(value: Tensor, first: Tensor, has_curvature: bool) -> Jet:
    second = None
    if has_curvature:
        batch, nz, n = first.shape
        second = first.new_zeros(batch, nz, nz, n)
    return Jet(value, first, second)


def _constant(value: Tensor, nz: int, has_curvature: bool) -> Jet:
    return _jet(value, value.new_zeros(value.shape[0], nz, value.shape[1]), has_curvature)


def _concatenate(parts: list[Jet]) -> Jet:
    seconds = [part.second for part in parts if part.second is not None]
    return Jet(
        torch.cat([part.value for part in parts], -1),
        torch.cat([part.first for part in parts], -1),
        torch.cat(seconds, -1) if seconds else None,
    )

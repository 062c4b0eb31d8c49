"""Values, gradients and Lie derivatives of any barrier, by automatic differentiation.

A barrier that knows its gradient has a method `gradient(state)`, which is used instead.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import ShapeError
from safectl.types import Barrier, Dynamics


@runtime_checkable
class HasGradient(Protocol):
    """A barrier with its gradient written out, for speed."""

    def gradient(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m nx"]:
        """Return dh/dx, one row per constraint."""
        ...


class Linearisation(NamedTuple):
    """h(x), shape (batch, m), and dh/dx, shape (batch, m, nx)."""

    value: Float[Tensor, "batch m"]
    gradient: Float[Tensor, "batch m nx"]


class Lie(NamedTuple):
    """Lf h, shape (batch, m), and Lg h, shape (batch, m, nu), in [unit of h / s]."""

    drift: Float[Tensor, "batch m"]
    gain: Float[Tensor, "batch m nu"]


def linearise(
    barrier: Barrier, state: Float[Tensor, "batch nx"], *, differentiable: bool = False
) -> Linearisation:
    """Evaluate a barrier and its gradient.

    Args:
        barrier: Safe set {x : h(x) >= 0}.
        state: States, shape (batch, nx), units of the model.
        differentiable: Keep the graph, so that the result can be differentiated again.

    Returns:
        `Linearisation(value, gradient)`; one backward pass per constraint unless the barrier has a
        `gradient` of its own.
    """
    if isinstance(barrier, HasGradient):
        with torch.set_grad_enabled(differentiable):
            return Linearisation(barrier.value(state), barrier.gradient(state))
    with torch.enable_grad():
        point = state if differentiable and state.requires_grad else _leaf(state)
        value = barrier.value(point)
        rows = [_row(value[:, j], point, keep=differentiable) for j in range(value.shape[1])]
    gradient = torch.stack(rows, dim=1) if rows else state.new_zeros(len(state), 0, state.shape[1])
    return Linearisation(value if differentiable else value.detach(), gradient)


def lie_derivatives(
    barrier: Barrier,
    dynamics: Dynamics,
    state: Float[Tensor, "batch nx"],
    *,
    differentiable: bool = False,
) -> Lie:
    """Differentiate a barrier along the dynamics.

    For x' = f(x) + g(x) u this is h'(x, u) = Lf h(x) + Lg h(x) u (Ames et al., "Control barrier
    functions: theory and applications", ECC 2019).

    Args:
        barrier: Safe set {x : h(x) >= 0}, h in the unit of the constraint.
        dynamics: Control-affine model.
        state: States, shape (batch, nx), units of the model.
        differentiable: Keep the graph, so that the result can be differentiated again.

    Returns:
        `Lie(drift, gain)` with shapes (batch, m) and (batch, m, nu), in [unit of h / s].

    Raises:
        ShapeError: If the states and the model disagree on nx.
    """
    if state.shape[-1] != dynamics.nx:
        raise ShapeError("state", expected=("batch", dynamics.nx), got=tuple(state.shape))
    gradient = linearise(barrier, state, differentiable=differentiable).gradient
    drift = (gradient @ dynamics.drift(state).unsqueeze(-1)).squeeze(-1)
    return Lie(drift, gradient @ dynamics.gain(state))


def _leaf(state: Tensor) -> Tensor:
    return state.detach().requires_grad_(True)


def _row(value: Tensor, point: Tensor, *, keep: bool) -> Tensor:
    if not value.requires_grad:  # a constraint that does not depend on the state
        return torch.zeros_like(point)
    (row,) = torch.autograd.grad(
        value.sum(), point, retain_graph=True, create_graph=keep, materialize_grads=True
    )
    return row

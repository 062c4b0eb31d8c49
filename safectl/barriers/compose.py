"""Barriers made of barriers: side by side, minimum and soft minimum."""

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.barriers.barrier import linearise
from safectl.errors import RangeError
from safectl.types import Barrier


class Stack:
    """Several barriers side by side: the intersection of their sets, every constraint kept."""

    def __init__(self, *barriers: Barrier) -> None:
        if not barriers:
            raise RangeError("barriers", value=(), expected="at least one barrier")
        self.barriers = barriers

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return all values, in the order of the barriers."""
        return torch.cat([barrier.value(state) for barrier in self.barriers], dim=1)

    def gradient(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m nx"]:
        """Return all gradients, in the order of the barriers."""
        return torch.cat([_gradient(barrier, state) for barrier in self.barriers], dim=1)


class Minimum:
    """h(x) = min_i h_i(x): one constraint, exact, with a gradient that jumps at a tie."""

    def __init__(self, barrier: Barrier) -> None:
        self.barrier = barrier

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch 1"]:
        """Return the smallest value."""
        return self.barrier.value(state).amin(dim=1, keepdim=True)

    def gradient(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch 1 nx"]:
        """Return the gradient of the (first) smallest entry."""
        smallest = self.barrier.value(state).argmin(dim=1)
        index = smallest.reshape(-1, 1, 1).expand(-1, 1, state.shape[1])
        return _gradient(self.barrier, state).gather(1, index)


class SoftMinimum:
    """h(x) = -log(sum_i exp(-k h_i(x))) / k: smooth, and never above the true minimum.

    min_i h_i - log(m) / k <= h <= min_i h_i, so h >= 0 implies every h_i >= 0 (the conservative
    side); the safe set shrinks by at most log(m) / k.

    Args:
        barrier: The constraints, all in one unit.
        sharpness: k > 0, in [1 / unit of h].

    Raises:
        RangeError: If the sharpness is not positive.
    """

    def __init__(self, barrier: Barrier, *, sharpness: float) -> None:
        if not sharpness > 0.0:
            raise RangeError("sharpness", value=sharpness, expected="a positive number")
        self.barrier, self.sharpness = barrier, sharpness

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch 1"]:
        """Return the soft minimum."""
        scaled = -self.sharpness * self.barrier.value(state)
        return -torch.logsumexp(scaled, dim=1, keepdim=True) / self.sharpness

    def gradient(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch 1 nx"]:
        """Return the mean of the gradients with weights softmax(-k h)."""
        weights = torch.softmax(-self.sharpness * self.barrier.value(state), dim=1)
        return weights.unsqueeze(1) @ _gradient(self.barrier, state)


def _gradient(barrier: Barrier, state: Tensor) -> Tensor:
    keep = torch.is_grad_enabled() and state.requires_grad
    return linearise(barrier, state, differentiable=keep).gradient

"""A shape that moves along a known path."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.barriers.positions import spread
from safectl.types import Barrier


class Moving:
    """h(x, t) = h_0(x - path(t)): a barrier whose place is a function of time.

    The state carries the time, so that it stays one fixed function of the state and its gradient
    holds the velocity of the shape.

    Args:
        shape: Where it is at displacement zero.
        path: Displacements [m], shape (batch, d), of times [s], shape (batch,).
        positions: Indices of the d positions in the state.
        time: Index of the time in the state; planners append it as the last entry.
    """

    def __init__(
        self,
        shape: Barrier,
        path: Callable[[Float[Tensor, " batch"]], Float[Tensor, "batch d"]],
        *,
        positions: Sequence[int] = (0, 1),
        time: int = -1,
    ) -> None:
        self.shape, self.path = shape, path
        self.positions, self.time = tuple(positions), time

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return the shape's values where it is at that time, in its unit."""
        displacement = self.path(state[:, self.time])
        return self.shape.value(torch.sub(state, spread(displacement, self.positions, state)))

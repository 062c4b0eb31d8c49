"""Discs and balls of positions, fixed or read from the state."""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.barriers.positions import select, spread
from safectl.errors import RangeError, ShapeError


class Discs:
    """h_i(x) = |p - c_i| - r_i outside each disc (or ball), or r_i - |p - c_i| inside.

    Args:
        centres: Shape (count, d), or (batch, count, d) when every row has discs of its own, [m].
        radius: Of all discs [m]; add the robot's own radius.
        positions: Indices of the d positions in the state.
        inside: Stay in every disc instead of out of every disc.

    Raises:
        ShapeError: If the centres have another number of coordinates.
        RangeError: If the radius is not positive, or a number is not finite.
    """

    def __init__(
        self,
        centres: Float[Tensor, "*rows count d"],
        radius: float,
        *,
        positions: Sequence[int] = (0, 1),
        inside: bool = False,
    ) -> None:
        if centres.shape[-1] != len(positions):
            raise ShapeError("centres", expected=("count", len(positions)), got=centres.shape)
        if not 0.0 < radius < math.inf:
            raise RangeError("radius", value=radius, expected="a positive length")
        if not bool(centres.isfinite().all()):
            raise RangeError("centres", value=centres.tolist(), expected="finite lengths")
        self.centres, self.radius = centres, radius
        self.positions, self.inside = tuple(positions), inside

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return the signed distances to the circles, in [m]."""
        distance = _length(self._offset(state)) - self.radius
        return -distance if self.inside else distance

    def gradient(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m nx"]:
        """Return the unit vectors from (or to) the centres; at a centre, the first axis."""
        unit = spread(_direction(self._offset(state)), self.positions, state)
        return -unit if self.inside else unit

    def _offset(self, state: Tensor) -> Tensor:
        return select(state, self.positions).unsqueeze(1) - self.centres.to(state)


def speed_limit(limit: float, *, velocities: Sequence[int]) -> Discs:
    """Build |v| <= limit [m/s] for the velocities at these indices of the state.

    Raises:
        RangeError: If the limit is not positive.
    """
    return Discs(torch.zeros(1, len(velocities)), limit, positions=velocities, inside=True)


class ObservedDiscs:
    """h_i(x) = |p - c_i| - r with the centres c_i read from the state, for discs that move or vary.

    A world with other hazards in every episode carries them in its state; the barrier stays one
    fixed function of the state.

    Args:
        centres: For each disc, the indices of its d coordinates in the state.
        radius: Of all discs [m]; add the robot's own radius.
        positions: Indices of the d positions in the state; empty if the centres are relative to
            the robot, in which case the distance is |c_i|.

    Raises:
        ShapeError: If the discs and the positions differ in their number of coordinates.
        RangeError: If the radius is not positive.
    """

    def __init__(
        self,
        centres: Sequence[Sequence[int]],
        radius: float,
        *,
        positions: Sequence[int] = (),
    ) -> None:
        sizes = {len(centre) for centre in centres} | ({len(positions)} if positions else set())
        if len(sizes) != 1:
            raise ShapeError("centres", expected=("count", "d"), got=tuple(sorted(sizes)))
        if not radius > 0.0:
            raise RangeError("radius", value=radius, expected="a positive length")
        self.centres = tuple(tuple(centre) for centre in centres)
        self.radius, self.positions = radius, tuple(positions)
        self.dimension = sizes.pop()

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return the signed distances to the circles, in [m]."""
        flat = [index for centre in self.centres for index in centre]
        offset = select(state, flat).reshape(len(state), len(self.centres), self.dimension)
        if self.positions:
            offset = offset - select(state, self.positions).unsqueeze(1)
        # Its gradient, unlike that of hypot, is finite on the axes and zero at the centre.
        length: Tensor = torch.linalg.vector_norm(offset, dim=-1)
        return length - self.radius


def _length(offset: Tensor) -> Tensor:
    """Return |offset| over the last axis; faster than a reduction over two or three entries."""
    return reduce(torch.hypot, offset.unbind(-1), torch.zeros_like(offset[..., 0]))


def _direction(offset: Tensor) -> Tensor:
    """Return offset / |offset|, and the first axis at zero."""
    length = _length(offset).unsqueeze(-1)
    at_centre = length == 0.0
    first = torch.zeros_like(offset)
    first[..., 0] = 1.0
    return torch.where(at_centre, first, offset / torch.where(at_centre, 1.0, length))

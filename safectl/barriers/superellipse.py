"""Ellipses and rounded rectangles, as a norm."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.barriers.positions import select, spread
from safectl.errors import RangeError, ShapeError


class Superellipse:
    """h(x) = |z|_p - 1 outside, or 1 - |z|_p inside, with z = (p - centre) / radii.

    The norm itself, not its power |z|_p^p - 1: the same set, but convex with a gradient that does
    not vanish, so one linear correction reaches the boundary from any distance. The power form is
    the one of Xiao et al., "SafeDiffuser", ICLR 2025; it is there to compare with.

    Args:
        centre: d coordinates [m].
        radii: d half axes [m].
        exponent: p >= 1; 2 is an ellipse, 4 a rounded rectangle.
        positions: Indices of the d positions in the state.
        inside: Stay inside instead of outside.
        is_power: Use |z|_p^p in place of |z|_p.

    Raises:
        ShapeError: If the lengths disagree.
        RangeError: If a radius is not positive or the exponent is below one.
    """

    def __init__(
        self,
        centre: Sequence[float],
        radii: Sequence[float],
        *,
        exponent: float = 2.0,
        positions: Sequence[int] = (0, 1),
        inside: bool = False,
        is_power: bool = False,
    ) -> None:
        for name, entries in (("centre", centre), ("radii", radii)):
            if len(entries) != len(positions):
                raise ShapeError(name, expected=(len(positions),), got=(len(entries),))
        if not all(radius > 0.0 for radius in radii):
            raise RangeError("radii", value=tuple(radii), expected="positive lengths")
        if not exponent >= 1.0:
            raise RangeError("exponent", value=exponent, expected="at least 1")
        self.centre = torch.tensor(centre, dtype=torch.float64)
        self.radii = torch.tensor(radii, dtype=torch.float64)
        self.exponent, self.positions, self.inside = exponent, tuple(positions), inside
        self.is_power = is_power

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return the scaled distance, without a unit: 0.1 is a tenth of the half axes."""
        norm = torch.linalg.vector_norm(self._scaled(state), self.exponent, dim=-1, keepdim=True)
        norm = norm**self.exponent if self.is_power else norm
        value: Tensor = 1.0 - norm if self.inside else norm - 1.0
        return value

    def gradient(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m nx"]:
        """Return z_i |z_i|^(p-2) / (|z|_p^(p-1) r_i), in [1/m]; at the centre, the first axis."""
        z = self._scaled(state)
        direction = _power_direction(z, self.exponent) / self.radii.to(state)
        if self.is_power:  # p |z|_p^(p-1) times that, zero at the centre
            norm = torch.linalg.vector_norm(z, self.exponent, dim=-1, keepdim=True)
            direction = self.exponent * norm ** (self.exponent - 1.0) * direction
        row = spread(direction.unsqueeze(1), self.positions, state)
        return -row if self.inside else row

    def _scaled(self, state: Tensor) -> Tensor:
        return (select(state, self.positions) - self.centre.to(state)) / self.radii.to(state)


def _power_direction(z: Tensor, exponent: float) -> Tensor:
    """Return d|z|_p / dz = sign(z) (|z| / |z|_p)^(p-1), and the first axis at z = 0."""
    norm = torch.linalg.vector_norm(z, exponent, dim=-1, keepdim=True)
    at_centre = norm == 0.0
    share = z.abs() / torch.where(at_centre, torch.ones_like(norm), norm)
    first = torch.zeros_like(z)
    first[..., 0] = 1.0
    return torch.where(at_centre, first, z.sign() * share ** (exponent - 1.0))

"""Half-spaces of positions, and the boxes and corridors made of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.barriers.positions import select, spread
from safectl.errors import RangeError, ShapeError


class HalfSpaces:
    """h_i(x) = n_i . p - b_i with unit normals n_i: distance to each plane, inwards positive.

    Args:
        normals: Shape (m, d); scaled to length one together with the offsets.
        offsets: Shape (m,), [unit of p times length of the normal].
        positions: Indices of the d positions in the state.

    Raises:
        ShapeError: If the sizes disagree.
        RangeError: If a normal is zero, or a normal or an offset is not finite.
    """

    def __init__(
        self,
        normals: Float[Tensor, "m d"],
        offsets: Float[Tensor, " m"],
        *,
        positions: Sequence[int] = (0, 1),
    ) -> None:
        if normals.shape[1] != len(positions):
            raise ShapeError("normals", expected=("m", len(positions)), got=tuple(normals.shape))
        if offsets.shape[0] != normals.shape[0]:
            raise ShapeError("offsets", expected=(normals.shape[0],), got=tuple(offsets.shape))
        length = torch.linalg.vector_norm(normals, dim=-1)
        if not bool(((length > 0.0) & length.isfinite()).all()):
            raise RangeError("normals", value=normals.tolist(), expected="finite, none zero")
        if not bool(offsets.isfinite().all()):
            raise RangeError("offsets", value=offsets.tolist(), expected="finite numbers")
        self.normals, self.offsets = normals / length.unsqueeze(-1), offsets / length
        self.positions = tuple(positions)

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return the signed distances, in the unit of the positions."""
        along = select(state, self.positions) @ self.normals.T.to(state)
        return torch.sub(along, self.offsets.to(state))

    def gradient(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m nx"]:
        """Return the normals."""
        normals = spread(self.normals.to(state), self.positions, state)
        return normals.expand(len(state), -1, -1)


def box(low: Sequence[float], high: Sequence[float], *, positions: Sequence[int]) -> HalfSpaces:
    """Build low <= p <= high, in the units of the positions; an infinite bound is left out.

    Raises:
        ShapeError: If the lengths disagree.
        RangeError: If `low < high` fails anywhere.
    """
    for name, bound in (("low", low), ("high", high)):
        if len(bound) != len(positions):
            raise ShapeError(name, expected=(len(positions),), got=(len(bound),))
    if not all(one < other for one, other in zip(low, high, strict=True)):
        raise RangeError("box", value=(tuple(low), tuple(high)), expected="low < high")
    axes = torch.eye(len(positions), dtype=torch.float64)
    normals = torch.cat([axes, -axes])
    offsets = torch.tensor([*low, *(-bound for bound in high)], dtype=torch.float64)
    finite = offsets.isfinite()
    return HalfSpaces(normals[finite], offsets[finite], positions=positions)


def roof(
    height: float, *, position: int, velocity: int | None = None, lookahead_s: float = 0.0
) -> HalfSpaces:
    """Build z + lookahead v_z <= height for one position and its velocity.

    Source: the roofs of Xiao et al., "SafeDiffuser", ICLR 2025, with lookahead 0.1 s. The value is
    scaled to a unit normal: (height - z - lookahead v_z) / sqrt(1 + lookahead^2).

    Args:
        height: Upper limit [m].
        position: Index of z in the state.
        velocity: Index of v_z; needed with a lookahead.
        lookahead_s: Time over which the velocity is held [s], >= 0.

    Raises:
        RangeError: If the lookahead is below zero, or has no velocity.
    """
    if not (lookahead_s == 0.0 or (lookahead_s > 0.0 and velocity is not None)):
        value = (lookahead_s, velocity)
        raise RangeError("lookahead_s, velocity", value=value, expected=">= 0 and an index")
    indices = (position,) if velocity is None else (position, velocity)
    normal = torch.tensor([[-1.0, -lookahead_s][: len(indices)]], dtype=torch.float64)
    return HalfSpaces(normal, torch.tensor([-height], dtype=torch.float64), positions=indices)


def corridor(
    point: tuple[float, float],
    direction: tuple[float, float],
    half_width: float,
    *,
    positions: Sequence[int] = (0, 1),
) -> HalfSpaces:
    """Build |distance to the line through `point` along `direction`| <= half_width, in [m].

    Raises:
        RangeError: If the half width is not positive or the direction is zero.
    """
    if not half_width > 0.0:
        raise RangeError("half_width", value=half_width, expected="a positive length")
    length = (direction[0] ** 2 + direction[1] ** 2) ** 0.5
    if not length > 0.0:
        raise RangeError("direction", value=direction, expected="a vector that is not zero")
    normal = torch.tensor([-direction[1], direction[0]], dtype=torch.float64) / length
    centre = normal @ torch.tensor(point, dtype=torch.float64)
    offsets = torch.stack([centre - half_width, -centre - half_width])
    return HalfSpaces(torch.stack([normal, -normal]), offsets, positions=positions)

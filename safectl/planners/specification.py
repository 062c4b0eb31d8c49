"""A specification in physical units, evaluated at normalised plans.

The barriers are those of the safeguards (`safectl.barriers`): the same objects serve the barrier
filter, the planner and the plots. They see rows of the observation and, for those that move, the
time [s] as one more entry behind it (`Moving`). In normalised coordinates x = centre + scale z each
has the same value, and the gradient times the scale. The common shapes are evaluated together.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.barriers import Discs, HalfSpaces, Stack, Superellipse, linearise
from safectl.errors import RangeError
from safectl.planners.normaliser import Normaliser
from safectl.types import Barrier

SUB_SEGMENTS = 4
"""Parts into which `segment_margin` cuts the way between two states."""


class Linear(NamedTuple):
    """b, shape (m, N), and db/dz of the coordinates that may be moved, shape (m, N, d)."""

    value: Float[Tensor, "m N"]
    gradient: Float[Tensor, "m N d"]


class Specification:
    """Barriers compiled for normalised observations.

    Warns where a barrier is not convex: then one step of the filter gives no guarantee and the
    planner repeats it. `is_proven` says whether `segment_values` are bounds, which takes barriers
    that are known to be convex or concave: discs, superellipses, half-spaces and stacks of them.

    Args:
        barriers: Safe sets over the observation (and time) in physical units, by name.
        normaliser: Of the observation.
        coordinates: Entries of the observation that may be moved to meet the barriers.

    Raises:
        RangeError: If there are no coordinates, or one is not in the observation.
    """

    def __init__(
        self,
        barriers: dict[str, Barrier],
        normaliser: Normaliser,
        *,
        coordinates: Sequence[int] = (0, 1),
    ) -> None:
        nx = len(normaliser.centre)
        if not coordinates or not all(0 <= index < nx for index in coordinates):
            expected = f"entries 0 to {nx - 1} of the observation"
            raise RangeError("coordinates", value=tuple(coordinates), expected=expected)
        self.barriers, self.normaliser = dict(barriers), normaliser
        self.coordinates = tuple(coordinates)
        self.scale = normaliser.scale[list(coordinates)]
        self._ready: dict[tuple[torch.dtype, torch.device], _Shapes] = {}
        parts = {name: _parts(barrier) for name, barrier in barriers.items()}
        self._parts = [part for each in parts.values() for part in each]
        self._shapes = _stack_shapes(self._parts, self.coordinates, normaliser)
        self._others = [part for part in self._parts if not _is_shape(part, self.coordinates)]
        curved = [name for name, each in parts.items() if any(_convexity(p) != 1 for p in each)]
        if curved:
            warnings.warn(
                f"{', '.join(curved)}: not known to be convex, so one step of a filter gives no "
                "guarantee; the finished plan is corrected again and its certificate decides",
                stacklevel=2,
            )
        self.is_convex = not curved
        self.is_proven = all(_convexity(part) != 0 for part in self._parts)

    def linearise(
        self, observation: Float[Tensor, "N nx"], time: Float[Tensor, " N"] | None = None
    ) -> Linear:
        """Evaluate all barriers and their gradients at normalised observations.

        Args:
            observation: Normalised rows.
            time: Of each row [s], zero without.
        """
        parts = []
        if self._shapes is not None:
            shapes = self._shapes_for(self._shapes, observation)
            parts.append(shapes.linearise(observation[:, list(self.coordinates)]))
        if self._others:
            state = self.physical(observation, time)
            scale = self.scale.to(state)
            for barrier in self._others:
                value, gradient = linearise(barrier, state)
                moved = gradient[:, :, list(self.coordinates)] * scale
                parts.append(Linear(value.T, moved.transpose(0, 1)))
        if not parts:
            rows, d = len(observation), len(self.coordinates)
            return Linear(observation.new_zeros(0, rows), observation.new_zeros(0, rows, d))
        if len(parts) == 1:
            return parts[0]
        return Linear(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _shapes_for(self, shapes: "_Shapes", like: Tensor) -> "_Shapes":
        """Return the constants in the precision and on the device of the plans, sent there once."""
        key = (like.dtype, like.device)
        if key not in self._ready:
            self._ready[key] = _Shapes(*(part.to(like) for part in shapes))
        return self._ready[key]

    def physical(
        self, observation: Float[Tensor, "N nx"], time: Float[Tensor, " N"] | None = None
    ) -> Float[Tensor, "N nx1"]:
        """Return physical observations with the time [s] as last entry."""
        state = self.normaliser.unnormalise(observation)
        time = state.new_zeros(len(state)) if time is None else time.to(state)
        return torch.cat([state, time.unsqueeze(-1)], dim=1)

    def values(self, state: Float[Tensor, "N nx1"]) -> Float[Tensor, "N m"]:
        """Return all barriers at physical observations with time, in the order of their names."""
        found = [barrier.value(state) for barrier in self.barriers.values()]
        return torch.cat([state.new_zeros(len(state), 0), *found], dim=1)

    def segment_values(self, states: Float[Tensor, "batch H nx1"]) -> Float[Tensor, "batch m"]:
        """Bound every barrier from below on the straight ways between consecutive states.

        Each way is cut in `SUB_SEGMENTS`. Where b is convex along a part, it lies above its
        tangents at both ends, so their crossing bounds it; where it is concave the smaller end
        does. Where neither is known (`is_proven` is false) it is the smallest of the samples only.
        """
        share = torch.arange(SUB_SEGMENTS + 1, dtype=states.dtype, device=states.device)
        share = (share / SUB_SEGMENTS).reshape(1, 1, -1, 1)
        first, last = states[:, :-1].unsqueeze(2), states[:, 1:].unsqueeze(2)
        points = first + share * (last - first)  # (batch, H - 1, parts + 1, nx1)
        along = ((last - first) / SUB_SEGMENTS).expand(-1, -1, SUB_SEGMENTS + 1, -1)
        flat, slope = points.flatten(0, 2), along.flatten(0, 2)
        found = []
        for barrier in self._parts:
            value, gradient = linearise(barrier, flat)
            rate = (gradient @ slope.unsqueeze(-1)).squeeze(-1)
            shape = (*points.shape[:3], value.shape[1])
            value, rate = value.reshape(shape), rate.reshape(shape)
            lowest = value.flatten(1, 2).amin(1)
            if _convexity(barrier) == 1:
                lowest = torch.minimum(lowest, _tangents(value, rate).flatten(1, 2).amin(1))
            found.append(lowest)
        return torch.cat([states.new_zeros(len(states), 0), *found], dim=1)

    def violated(self, state: Float[Tensor, "N nx1"]) -> Bool[Tensor, " N"]:
        """Return which rows lie outside of a set, NaN included."""
        return ~(self.values(state) >= 0.0).all(-1)


def _tangents(value: Tensor, rate: Tensor) -> Tensor:
    """Return the height at which the tangents at both ends of each part cross, else the lower end.

    With f0, f0' at 0 and f1, f1' at 1: they cross at s = (f1 - f1' - f0) / (f0' - f1').
    """
    start, end = value[:, :, :-1], value[:, :, 1:]
    down, up = rate[:, :, :-1], rate[:, :, 1:]
    crosses = (down < 0.0) & (up > 0.0)
    place = (end - up - start) / torch.where(crosses, down - up, -1.0)
    return torch.where(crosses, start + down * place.clamp(0.0, 1.0), torch.minimum(start, end))


def _parts(barrier: Barrier) -> list[Barrier]:
    """Return the barriers that stand side by side in one, in its order."""
    if isinstance(barrier, Stack):
        return [part for each in barrier.barriers for part in _parts(each)]
    return [barrier]


def _convexity(barrier: Barrier) -> int:
    """Return 1 for convex (or linear) in the state, -1 for concave, 0 where neither is known."""
    if isinstance(barrier, Discs | Superellipse):
        return -1 if barrier.inside else 1
    return 1 if isinstance(barrier, HalfSpaces) else 0


def _is_shape(barrier: Barrier, coordinates: tuple[int, ...]) -> bool:
    fixed = isinstance(barrier, Superellipse) or (
        isinstance(barrier, Discs) and barrier.centres.ndim == 2
    )
    return fixed and barrier.positions == coordinates  # type: ignore[attr-defined]  # one of both


class _Shapes(NamedTuple):
    """s (|z|_p^q - 1) of m shapes, z = (P - centre) / radii; all constants broadcast over N."""

    centre: Tensor  # (m, 1, d)
    inverse: Tensor  # (m, 1, d)
    exponent: Tensor  # p, (m, 1, 1)
    outer: Tensor  # q / p, (m, 1)
    size: Tensor  # s: -1 inside, 1 outside, times the radius of a disc [m], (m, 1)

    def linearise(self, points: Tensor) -> Linear:
        """With S = sum |z_i|^p: b = s (S^(q/p) - 1), db/dP_i = s q S^(q/p-1) |z_i|^(p-1) sgn/r."""
        centre, inverse, exponent, outer, size = self
        z = (points - centre) * inverse
        inner = z.abs() ** (exponent - 1.0)
        total = (z.abs() * inner).sum(-1)
        root = total**outer
        value = size * (root - 1.0)
        at_centre = total == 0.0
        factor = size * exponent.squeeze(-1) * outer * root / torch.where(at_centre, 1.0, total)
        gradient = factor.unsqueeze(-1) * inner.copysign(z) * inverse
        # Any direction leads out of the centre: the first axis, as in `Superellipse`.
        first = torch.zeros_like(inverse)
        first[..., 0] = size * exponent.squeeze(-1) * outer * inverse[..., 0]
        return Linear(value, torch.where(at_centre.unsqueeze(-1), first, gradient))


def _stack_shapes(
    barriers: Sequence[Barrier], coordinates: tuple[int, ...], normaliser: Normaliser
) -> _Shapes | None:
    index = list(coordinates)
    middle, scale = (part[index].double().cpu() for part in (normaliser.centre, normaliser.scale))
    rows = list[tuple[Tensor, Tensor, float, float, float]]()
    for barrier in barriers:
        if not _is_shape(barrier, coordinates):
            continue
        sign = -1.0 if barrier.inside else 1.0  # type: ignore[attr-defined]  # a shape
        if isinstance(barrier, Discs):
            radius = torch.full((len(index),), barrier.radius, dtype=torch.float64)
            size = sign * barrier.radius
            rows.extend(
                (centre, radius, 2.0, 1.0, size) for centre in barrier.centres.double().cpu()
            )
        elif isinstance(barrier, Superellipse):
            power = barrier.exponent if barrier.is_power else 1.0
            rows.append((barrier.centre, barrier.radii, barrier.exponent, power, sign))
    if not rows:
        return None
    centres, radii, exponents, powers, signs = zip(*rows, strict=True)
    p = torch.tensor(exponents, dtype=torch.float64)
    return _Shapes(
        ((torch.stack(centres) - middle) / scale).unsqueeze(1),
        (scale / torch.stack(radii)).unsqueeze(1),
        p.reshape(-1, 1, 1),
        (torch.tensor(powers, dtype=torch.float64) / p).unsqueeze(-1),
        torch.tensor(signs, dtype=torch.float64).unsqueeze(-1),
    )

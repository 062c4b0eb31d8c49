"""Affine coordinates in which every entry of a transition has about the same size."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.errors import NonFiniteError, RangeError

CLIP_TOLERANCE = 1e-4
"""How far past the data a normalised entry may lie without counting as clipped, as in Diffuser."""


@dataclass(frozen=True, slots=True, eq=False)
class Normaliser:
    """z = (x - centre) / scale, per entry.

    Attributes:
        centre: Shape (D,), in the units of the entries.
        scale: Shape (D,), positive, in the same units.
        is_bounded: Whether the data lie in [-1, 1], so that `clip` has a meaning.
    """

    centre: Float[Tensor, " D"]
    scale: Float[Tensor, " D"]
    is_bounded: bool = True

    def __post_init__(self) -> None:
        if not bool(((self.scale > 0.0) & self.scale.isfinite()).all()):
            raise RangeError("scale", value=self.scale.tolist(), expected="positive numbers")

    def normalise(self, entries: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Return z of x."""
        return (entries - self.centre.to(entries)) / self.scale.to(entries)

    def unnormalise(self, entries: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Return x of z, without the clip that hides what lies outside the data."""
        return entries * self.scale.to(entries) + self.centre.to(entries)

    def clip(self, entries: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Return z limited to the data; unchanged where there are no limits."""
        return entries.clamp(-1.0, 1.0) if self.is_bounded else entries

    def would_clip(self, entries: Float[Tensor, "... D"]) -> Bool[Tensor, "... D"]:
        """Return which entries of z lie outside the data."""
        outside: Tensor = entries.abs() > 1.0 + CLIP_TOLERANCE
        return outside if self.is_bounded else torch.zeros_like(outside)


def limits_normaliser(rows: Float[Tensor, "rows D"]) -> Normaliser:
    """Map the smallest and largest value of each entry to -1 and 1.

    Raises:
        NonFiniteError: If a value is NaN or infinite.
    """
    _require_finite(rows)
    low, high = rows.amin(0), rows.amax(0)
    return Normaliser(0.5 * (low + high), _positive(0.5 * (high - low)))


def gaussian_normaliser(rows: Float[Tensor, "rows D"]) -> Normaliser:
    """Map mean and standard deviation of each entry to 0 and 1.

    Raises:
        NonFiniteError: If a value is NaN or infinite.
    """
    _require_finite(rows)
    return Normaliser(rows.mean(0), _positive(rows.std(0)), is_bounded=False)


def _positive(scale: Tensor) -> Tensor:
    """Replace the scale of an entry that never changes."""
    return torch.where(scale > 0.0, scale, torch.ones_like(scale))


def _require_finite(rows: Tensor) -> None:
    count = int((~rows.isfinite()).sum())
    if count:
        advice = "repair or drop these rows of the dataset"
        raise NonFiniteError("data", count=count, size=rows.numel(), advice=advice)

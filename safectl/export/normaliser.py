"""Statistics of an observation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError, ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class Normaliser:
    """Statistics of an observation: clip((x - mean) / sqrt(variance + epsilon), -clip, clip).

    Attributes:
        mean: Shape (n,), units of the observation, float64.
        variance: Shape (n,), units squared, never negative, float64.
        epsilon: Added to the variance; zero only if no variance is.
        clip: Largest magnitude after normalisation, above zero; infinity for none.
    """

    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    epsilon: float = 1e-8
    clip: float = 10.0

    def __post_init__(self) -> None:
        if self.variance.shape != self.mean.shape or self.mean.ndim != 1:
            raise ShapeError("variance", expected=self.mean.shape, got=self.variance.shape)
        if not (self.variance >= 0.0).all() or not (self.variance + self.epsilon > 0.0).all():
            raise RangeError(
                "variance + epsilon",
                value=float((self.variance + self.epsilon).min()),
                expected="above zero, with no variance below zero",
            )
        if not self.clip > 0.0:
            raise RangeError("clip", value=self.clip, expected="a number above zero")

"""What every model shares: process noise, and a check of the shapes it is given."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.types import Gaussian


def check_period(period: float) -> float:
    """Return the period [s], refusing one that is not positive and finite.

    Raises:
        RangeError: If it is not.
    """
    if not 0.0 < period < float("inf"):
        raise RangeError("period", value=period, expected="a positive number of seconds")
    return period


def check_noise(noise: Sequence[float] | None, nx: int) -> tuple[float, ...]:
    """Return one standard deviation per state and step; None means none.

    Raises:
        ShapeError: If the length is not nx.
        RangeError: If one is negative or not finite.
    """
    if noise is None:
        return (0.0,) * nx
    if len(noise) != nx:
        raise ShapeError("noise", expected=(nx,), got=(len(noise),))
    if not all(0.0 <= deviation < float("inf") for deviation in noise):
        raise RangeError("noise", value=tuple(noise), expected="standard deviations >= 0")
    return tuple(noise)


def with_noise(mean: Float[Tensor, "batch nx"], noise: Sequence[float]) -> Gaussian:
    """Attach the covariance diag(noise^2) to a predicted mean of shape (batch, nx)."""
    size = (mean.shape[0], len(noise), len(noise))
    if not any(noise):
        return Gaussian(mean, mean.new_zeros(()).expand(size))
    variance = torch.as_tensor(noise, dtype=mean.dtype, device=mean.device).square()
    return Gaussian(mean, torch.diag(variance).expand(size))

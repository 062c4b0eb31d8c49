"""Linear models, discretised exactly for an action that is held over the period."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.dynamics.dynamics import check_noise, check_period, with_noise
from safectl.errors import ShapeError
from safectl.types import Gaussian


class LinearDynamics:
    """x' = A x + B u, with x[k+1] = Ad x[k] + Bd u[k] exact for a held action.

    Args:
        A: State matrix, shape (nx, nx), [1/s].
        B: Input matrix, shape (nx, nu), [unit of x / (s * unit of u)].
        period: Time between two actions [s].
        noise: Standard deviation of the process noise per step and state; none by default.

    Raises:
        ShapeError: If A is not square or B has another number of rows.
        RangeError: If the period or a noise entry is out of range.
    """

    def __init__(
        self,
        A: Float[Tensor, "nx nx"],
        B: Float[Tensor, "nx nu"],
        period: float,
        *,
        noise: Sequence[float] | None = None,
    ) -> None:
        if A.ndim != 2 or A.shape[0] != A.shape[1]:
            raise ShapeError("A", expected=("nx", "nx"), got=tuple(A.shape))
        if B.ndim != 2 or B.shape[0] != A.shape[0]:
            raise ShapeError("B", expected=(A.shape[0], "nu"), got=tuple(B.shape))
        self.nx, self.nu = A.shape[0], B.shape[1]
        self.period = check_period(period)
        self.noise = check_noise(noise, self.nx)
        self.A, self.B = A, B
        self.Ad, self.Bd = _zero_order_hold(A, B, period)

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return A x."""
        return state @ self.A.T.to(state)

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return B for every row."""
        return self.B.to(state).expand(state.shape[0], -1, -1)

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return Ad x + Bd u with the process noise."""
        mean = state @ self.Ad.T.to(state) + action @ self.Bd.T.to(state)
        return with_noise(mean, self.noise)

    def propagate(self, belief: Gaussian, action: Float[Tensor, "batch nu"], /) -> Gaussian:
        """Return Ad x + Bd u for an uncertain x: Ad P Ad^T plus the process noise, exact."""
        mean, noise = self.predict(belief.mean, action)
        transition = self.Ad.to(belief.mean)
        return Gaussian(mean, transition @ belief.covariance @ transition.T + noise)


def double_integrator(
    period: float, *, axes: int = 1, noise: Sequence[float] | None = None
) -> LinearDynamics:
    """Build p'' = u per axis: state (positions [m], velocities [m/s]), action [m/s^2]."""
    identity = torch.eye(axes, dtype=torch.float64)
    zero = torch.zeros(axes, axes, dtype=torch.float64)
    A = torch.cat([torch.cat([zero, identity], 1), torch.cat([zero, zero], 1)], 0)
    return LinearDynamics(A, torch.cat([zero, identity], 0), period, noise=noise)


def _zero_order_hold(A: Tensor, B: Tensor, period: float) -> tuple[Tensor, Tensor]:
    """exp([[A, B], [0, 0]] T) = [[Ad, Bd], [0, I]]."""
    nx, nu = B.shape
    block = torch.zeros(nx + nu, nx + nu, dtype=torch.float64)
    block[:nx, :nx], block[:nx, nx:] = A, B
    power = torch.linalg.matrix_exp(block * period)
    return power[:nx, :nx], power[:nx, nx:]

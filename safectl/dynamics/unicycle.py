"""A unicycle: forward speed and turn rate are commanded."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.dynamics.dynamics import check_noise, check_period, with_noise
from safectl.dynamics.moments import moved_by, velocity_moments
from safectl.types import Gaussian


class Unicycle:
    """State (x [m], y [m], heading [rad]); action (forward speed [m/s], turn rate [rad/s]).

    x' = v cos(heading), y' = v sin(heading), heading' = w. One step moves along the heading at its
    start (explicit Euler), so the step too is affine in the action.

    Raises:
        RangeError: If the period or a noise entry is out of range.
    """

    nx = 3
    nu = 2

    def __init__(self, period: float, *, noise: Sequence[float] | None = None) -> None:
        self.period = check_period(period)
        self.noise = check_noise(noise, self.nx)

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return zero: the unicycle stands still without a command."""
        return torch.zeros_like(state)

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return [[cos, 0], [sin, 0], [0, 1]] per row."""
        heading = state[:, 2]
        zero, one = torch.zeros_like(heading), torch.ones_like(heading)
        columns = [heading.cos(), zero, heading.sin(), zero, zero, one]
        return torch.stack(columns, dim=-1).reshape(-1, self.nx, self.nu)

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return x + T g(x) u with the process noise."""
        heading, step = state[:, 2], self.period * action[:, 0]
        change = [step * heading.cos(), step * heading.sin(), self.period * action[:, 1]]
        return with_noise(state + torch.stack(change, dim=-1), self.noise)

    def propagate(self, belief: Gaussian, action: Float[Tensor, "batch nu"], /) -> Gaussian:
        """Return mean and covariance of this step, exact for a Gaussian state."""
        mean = belief.mean
        velocity = velocity_moments(
            belief,
            heading=2,
            speed=action[:, 0],
            speed_cross=torch.zeros_like(mean),
            speed_variance=torch.zeros_like(mean[:, 0]),
        )
        identity = torch.eye(self.nx, dtype=mean.dtype, device=mean.device).expand(
            len(mean), -1, -1
        )
        moved = moved_by(belief, identity, velocity, self.period)
        change = torch.cat([velocity.mean, action[:, 1:]], dim=-1)
        noise = with_noise(mean, self.noise).covariance
        return Gaussian(mean + self.period * change, moved + noise)

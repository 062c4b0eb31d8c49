"""A kinematic bicycle: acceleration and steering are commanded."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.dynamics.dynamics import check_noise, check_period, with_noise
from safectl.dynamics.moments import moved_by, velocity_moments
from safectl.errors import RangeError
from safectl.types import Gaussian

_HEADING, _SPEED = 2, 3


class Bicycle:
    """State (x [m], y [m], heading [rad], speed [m/s]) of the rear axle's middle.

    The action is (acceleration [m/s^2], tangent of the steering angle), in which the model is
    affine:

        x' = v cos(heading), y' = v sin(heading), heading' = v tan(steering) / wheelbase, v' = a.

    One step moves along the heading and with the speed at its start (explicit Euler).

    Raises:
        RangeError: If the wheelbase, the period or a noise entry is out of range.
    """

    nx = 4
    nu = 2

    def __init__(
        self, period: float, *, wheelbase: float, noise: Sequence[float] | None = None
    ) -> None:
        if not 0.0 < wheelbase < float("inf"):
            raise RangeError("wheelbase", value=wheelbase, expected="a positive length")
        self.period, self.wheelbase = check_period(period), wheelbase
        self.noise = check_noise(noise, self.nx)

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return (v cos, v sin, 0, 0)."""
        heading, speed = state[:, _HEADING], state[:, _SPEED]
        zero = torch.zeros_like(speed)
        return torch.stack([speed * heading.cos(), speed * heading.sin(), zero, zero], dim=-1)

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return [[0, 0], [0, 0], [0, v / wheelbase], [1, 0]] per row."""
        gain = state.new_zeros(len(state), self.nx, self.nu)
        gain[:, _HEADING, 1] = state[:, _SPEED] / self.wheelbase
        gain[:, _SPEED, 0] = 1.0
        return gain

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return x + T (f(x) + g(x) u) with the process noise."""
        turn = state[:, _SPEED] * action[:, 1] / self.wheelbase
        steered = torch.stack([torch.zeros_like(turn), torch.zeros_like(turn), turn, action[:, 0]])
        return with_noise(state + self.period * (self.drift(state) + steered.T), self.noise)

    def propagate(self, belief: Gaussian, action: Float[Tensor, "batch nu"], /) -> Gaussian:
        """Return mean and covariance of this step, exact for a Gaussian state."""
        mean, covariance = belief
        velocity = velocity_moments(
            belief,
            heading=_HEADING,
            speed=mean[:, _SPEED],
            speed_cross=covariance[:, _SPEED],
            speed_variance=covariance[:, _SPEED, _SPEED],
        )
        transition = torch.eye(self.nx, dtype=mean.dtype, device=mean.device).repeat(
            len(mean), 1, 1
        )
        transition[:, _HEADING, _SPEED] = self.period * action[:, 1] / self.wheelbase
        turn = mean[:, _SPEED] * action[:, 1] / self.wheelbase
        change = torch.stack([*velocity.mean.unbind(-1), turn, action[:, 0]], dim=-1)
        moved = moved_by(belief, transition, velocity, self.period)
        noise = with_noise(mean, self.noise).covariance
        return Gaussian(mean + self.period * change, moved + noise)

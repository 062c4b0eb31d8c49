"""A cart with an inverted pole, pushed by a force."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.dynamics.dynamics import check_noise, check_period, with_noise
from safectl.types import Gaussian


@dataclass(frozen=True, slots=True)
class CartPoleParameters:
    """Textbook values (Barto, Sutton and Anderson, 1983)."""

    cart_mass: float = 1.0
    """Mass of the cart [kg]."""
    pole_mass: float = 0.1
    """Mass of the pole [kg]."""
    half_length: float = 0.5
    """Distance from the joint to the centre of the pole [m]."""
    gravity: float = 9.8
    """Acceleration of gravity [m/s^2]."""


class CartPole:
    """State (position [m], velocity [m/s], angle [rad], rate [rad/s]); action (force [N]).

    The angle is zero upright and positive towards positive positions. Without friction (Florian,
    2007, equations 23 and 24). One step is explicit Euler, hence affine in the force.

    Raises:
        RangeError: If the period or a noise entry is out of range.
    """

    nx = 4
    nu = 1

    def __init__(
        self,
        period: float,
        parameters: CartPoleParameters | None = None,
        *,
        noise: Sequence[float] | None = None,
    ) -> None:
        self.period = check_period(period)
        self.noise = check_noise(noise, self.nx)
        self.parameters = parameters or CartPoleParameters()

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return f(x): the motion without a force."""
        velocity, angle, rate = state[:, 1], state[:, 2], state[:, 3]
        p = self.parameters
        total, moment = p.cart_mass + p.pole_mass, p.pole_mass * p.half_length
        swing = moment * rate.square() * angle.sin() / total
        angular = (p.gravity * angle.sin() - angle.cos() * swing) / self._inertia(angle)
        linear = swing - moment * angular * angle.cos() / total
        return torch.stack([velocity, linear, rate, angular], dim=-1)

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return g(x): the accelerations per newton."""
        angle = state[:, 2]
        p = self.parameters
        total, moment = p.cart_mass + p.pole_mass, p.pole_mass * p.half_length
        angular = -angle.cos() / (total * self._inertia(angle))
        linear = 1.0 / total - moment * angular * angle.cos() / total
        zero = torch.zeros_like(angle)
        return torch.stack([zero, linear, zero, angular], dim=-1).unsqueeze(-1)

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return x + T (f(x) + g(x) u) with the process noise."""
        rate = self.drift(state) + (self.gain(state) @ action.unsqueeze(-1)).squeeze(-1)
        return with_noise(state + self.period * rate, self.noise)

    def _inertia(self, angle: Tensor) -> Tensor:
        p = self.parameters
        share = p.pole_mass * angle.cos().square() / (p.cart_mass + p.pole_mass)
        return p.half_length * (4.0 / 3.0 - share)

"""A mass on a spring with a damper, pushed by a force; the spring may harden."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.dynamics.dynamics import check_noise, check_period, with_noise
from safectl.types import Gaussian

SUBSTEPS = 8
"""Runge-Kutta steps per period. At 20 ms and the default constants the error of a step is 1e-11."""


@dataclass(frozen=True, slots=True)
class MassSpringDamperParameters:
    """An underdamped plant with a gain of one."""

    mass: float = 0.1
    """[kg]."""
    damping: float = 0.2
    """[N s / m]."""
    stiffness: float = 1.0
    """[N / m]."""
    hardening: float = 0.0
    """Cubic part of the spring [N / m^3]."""


class MassSpringDamper:
    """State (position [m], velocity [m/s]); action (force [N]).

    m x'' + c x' + k x + k3 x^3 = u, by the classical Runge-Kutta method with a held force.

    Raises:
        RangeError: If the period or a noise entry is out of range.
    """

    nx = 2
    nu = 1

    def __init__(
        self,
        period: float,
        parameters: MassSpringDamperParameters | None = None,
        *,
        noise: Sequence[float] | None = None,
    ) -> None:
        self.period = check_period(period)
        self.noise = check_noise(noise, self.nx)
        self.parameters = parameters or MassSpringDamperParameters()

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return f(x): the motion without a force."""
        position, velocity = state.unbind(-1)
        p = self.parameters
        spring = p.stiffness * position + p.hardening * position**3
        return torch.stack([velocity, -(spring + p.damping * velocity) / p.mass], dim=-1)

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return g(x): the acceleration per newton."""
        column = state.new_tensor([[0.0], [1.0 / self.parameters.mass]])
        return column.expand(len(state), -1, -1)

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return the state one period later with the process noise."""
        push = (self.gain(state) @ action.unsqueeze(-1)).squeeze(-1)
        step = self.period / SUBSTEPS
        for _ in range(SUBSTEPS):
            k1 = self.drift(state) + push
            k2 = self.drift(state + 0.5 * step * k1) + push
            k3 = self.drift(state + 0.5 * step * k2) + push
            k4 = self.drift(state + step * k3) + push
            state = state + step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        return with_noise(state, self.noise)

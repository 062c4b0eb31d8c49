"""Means and covariances of states that are uncertain, one step and several steps ahead.

For a jointly Gaussian state and a complex exponential of its heading q with mean p and variance s,

    E[f(x) exp(i k q)] = exp(i k p - k^2 s / 2) E[f(x + i k Cov(x, q))],

so the moments of v cos q and v sin q are exact in closed form. After one step the state is no
longer Gaussian; the next step takes it for a Gaussian with the same moments.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from safectl.types import Dynamics, Gaussian


@runtime_checkable
class Propagates(Dynamics, Protocol):
    """A model that knows how uncertainty of the state travels."""

    def propagate(self, belief: Gaussian, action: Float[Tensor, "batch nu"], /) -> Gaussian:
        """Return mean and covariance one period later, process noise included."""
        ...


class Uncertain:
    """A model whose states are measured with an error: `predict` includes it.

    Args:
        dynamics: The model.
        covariance: Of the measured state, shape (nx, nx), units of the state squared.
    """

    def __init__(self, dynamics: Propagates, covariance: Float[Tensor, "nx nx"]) -> None:
        self.dynamics, self.covariance = dynamics, covariance
        self.nx, self.nu = dynamics.nx, dynamics.nu

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return f of the model."""
        return self.dynamics.drift(state)

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return g of the model."""
        return self.dynamics.gain(state)

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return the state one period later, from a state measured with this covariance."""
        covariance = self.covariance.to(state).expand(len(state), -1, -1)
        return self.dynamics.propagate(Gaussian(state, covariance), action)


def propagate_plan(
    dynamics: Propagates, belief: Gaussian, actions: Float[Tensor, "batch H nu"]
) -> list[Gaussian]:
    """Return the belief after each of H actions."""
    beliefs = []
    for action in actions.unbind(1):
        belief = dynamics.propagate(belief, action)
        beliefs.append(belief)
    return beliefs


class Velocity(NamedTuple):
    """Moments of w = (v cos q, v sin q) and of its covariance with the state.

    Attributes:
        mean: Shape (batch, 2).
        covariance: Shape (batch, 2, 2).
        cross: Cov(x, w), shape (batch, nx, 2).
    """

    mean: Float[Tensor, "batch 2"]
    covariance: Float[Tensor, "batch 2 2"]
    cross: Float[Tensor, "batch nx 2"]


def velocity_moments(
    belief: Gaussian,
    *,
    heading: int,
    speed: Float[Tensor, " batch"],
    speed_cross: Float[Tensor, "batch nx"],
    speed_variance: Float[Tensor, " batch"],
) -> Velocity:
    """Return the exact moments of the velocity in the plane.

    Args:
        belief: Of the state, which holds the heading q.
        heading: Index of q.
        speed: Mean of v.
        speed_cross: Cov(x, v); zero if v is commanded.
        speed_variance: Variance of v.
    """
    mean, variance = belief.mean[:, heading], belief.covariance[:, heading, heading]
    by_heading = belief.covariance[:, :, heading]
    turned = speed_cross[:, heading]
    once = torch.polar((-0.5 * variance).exp(), mean)
    twice = torch.polar((-2.0 * variance).exp(), 2.0 * mean)
    first = torch.complex(speed, turned) * once
    second = (torch.complex(speed, 2.0 * turned).square() + speed_variance) * twice
    size = speed.square() + speed_variance
    cos, sin = first.real, first.imag
    both = 0.5 * second.imag - cos * sin
    covariance = [
        0.5 * (size + second.real) - cos.square(),
        both,
        both,
        0.5 * (size - second.real) - sin.square(),
    ]
    cross = _cross(by_heading, torch.complex(speed, turned), speed_cross) * once.unsqueeze(-1)
    return Velocity(
        torch.stack([cos, sin], -1),
        torch.stack(covariance, -1).reshape(-1, 2, 2),
        torch.stack([cross.real, cross.imag], -1),
    )


def _cross(
    by_heading: Float[Tensor, "batch nx"],
    speed: Complex[Tensor, " batch"],
    speed_cross: Float[Tensor, "batch nx"],
) -> Complex[Tensor, "batch nx"]:
    """Return Cov(x, v exp(i q)) / E[exp(i q)] = i Cov(x, q) (v + i Cov(v, q)) + Cov(x, v)."""
    return 1j * by_heading * speed.unsqueeze(-1) + speed_cross


def moved_by(
    belief: Gaussian, transition: Float[Tensor, "batch nx nx"], velocity: Velocity, period: float
) -> Float[Tensor, "batch nx nx"]:
    """Return the covariance of F x + T (w, 0, ...), w added to the first two states."""
    along = transition @ velocity.cross
    covariance = transition @ belief.covariance @ transition.transpose(1, 2)
    covariance[:, :2] += period * along.transpose(1, 2)
    covariance[:, :, :2] += period * along
    covariance[:, :2, :2] += period * period * velocity.covariance
    return covariance

"""A unicycle whose model state also holds the discs that it must not enter."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.dynamics import Unicycle
from safectl.dynamics.dynamics import with_noise
from safectl.errors import RangeError
from safectl.export.models import Motion, motion_of
from safectl.export.trace import Tracer
from safectl.types import Gaussian


class UnicycleAmongDiscs:
    """State (x, y, heading, centre_1 (2), ..., centre_n (2)) [m, rad]; action [m/s, rad/s].

    The discs stand still. Carrying them in the state makes a barrier that depends on the layout of
    an episode one fixed function of the state.

    Args:
        unicycle: Moves the first three states.
        discs: Number of discs.

    Raises:
        RangeError: If the number is negative.
    """

    nu = 2

    def __init__(self, unicycle: Unicycle, discs: int) -> None:
        if discs < 0:
            raise RangeError("discs", value=discs, expected="at least 0")
        self.unicycle = unicycle
        self.nx = unicycle.nx + 2 * discs

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return zero: nothing moves without a command."""
        return torch.zeros_like(state)

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return the unicycle's g(x) above zeros."""
        gain = self.unicycle.gain(state[:, : self.unicycle.nx])
        return torch.nn.functional.pad(gain, (0, 0, 0, self.nx - self.unicycle.nx))

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return the unicycle's prediction beside the unchanged centres."""
        pose = self.unicycle.predict(state[:, : self.unicycle.nx], action).mean
        # Joined as rows of columns, so that a state whose batch is contiguous in memory stays so.
        mean = torch.cat([pose.T, state[:, self.unicycle.nx :].T]).T
        return with_noise(mean, (*self.unicycle.noise, *[0.0] * (self.nx - self.unicycle.nx)))

    def motion(self, tracer: Tracer, state: str) -> Motion:
        """Append the unicycle's operations; the centres stay."""
        pose = tracer.slice(state, 0, self.unicycle.nx, name="model_pose")
        return replace(motion_of(tracer, self.unicycle, pose), state=state)

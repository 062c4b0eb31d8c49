"""Synthetic soft platforms: actuators bend or lift a plate, embedded sensors see its pose.

Nobody's hardware. The shapes (inputs, sensors, ranges, sampling) are those of two published rigs,
the dynamics and the sensor maps are invented: every axis of the pose follows a nonlinear function
of the inputs as a damped oscillator, without hysteresis.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.seed import torch_generator


@dataclass(frozen=True, slots=True)
class SoftPlatform:
    """State: position (3) and velocity (3) of the plate from its rest pose, units of `unit_m`.

    With v the inputs scaled to [-1, 1], the pose tends to p* = reach tanh(W v + v' V v), where W
    and V are drawn from `seed` around the geometry of the actuators:

        p'' = w^2 (p* - p) - 2 z w p'

    solved exactly for held inputs. Sensors are 0.5 tanh(C p + p' D p) with C and D from `seed`.

    Attributes:
        inputs: Number of actuators, placed on a circle.
        sensors: Number of sensor signals.
        low: Lower limit of every input, units of the input.
        high: Upper limit of every input.
        start: Input in the rest pose.
        reach: Largest magnitude per axis, in `unit_m`.
        dome: Heave per squared lateral motion [1 / unit_m]; None where heave is an axis of its own.
        frequency_hz: w / (2 pi).
        damping: z.
        unit_m: Length that a position of 1 stands for [m].
        period: Time between two inputs [s].
        seed: Of the maps.
    """

    inputs: int
    sensors: int
    low: float
    high: float
    start: float
    reach: tuple[float, float, float]
    dome: float | None
    frequency_hz: float
    damping: float
    unit_m: float
    period: float
    seed: int = 0

    def rest(self, batch: int) -> Float[Tensor, "batch 6"]:
        """Return the rest pose, float64."""
        return torch.zeros(batch, 6, dtype=torch.float64)

    def target(self, action: Float[Tensor, "batch m"]) -> Float[Tensor, "batch 3"]:
        """Return the pose that held inputs lead to, relative to that of `start`."""
        return self._static(action) - self._static(torch.full_like(action[:1], self.start))

    def step(
        self, state: Float[Tensor, "batch 6"], action: Float[Tensor, "batch m"]
    ) -> Float[Tensor, "batch 6"]:
        """Return the state one period later."""
        rate = 2.0 * math.pi * self.frequency_hz
        matrix = state.new_tensor([[0.0, 1.0], [-(rate**2), -2.0 * self.damping * rate]])
        power = torch.linalg.matrix_exp(matrix * self.period)
        target = self.target(action)
        pair = torch.stack([state[:, :3] - target, state[:, 3:]], 1)
        moved = torch.einsum("ij,bjk->bik", power, pair)
        return torch.cat([moved[:, 0] + target, moved[:, 1]], 1)

    def signals(self, state: Float[Tensor, "batch 6"]) -> Float[Tensor, "batch sensors"]:
        """Return the sensor signals, each in (-0.5, 0.5)."""
        generator = torch_generator(self.seed, "soft platform sensors")
        linear = torch.randn(self.sensors, 3, generator=generator, dtype=torch.float64)
        bent = 0.3 * torch.randn(self.sensors, 3, 3, generator=generator, dtype=torch.float64)
        pose = state[:, :3] / state.new_tensor(self.reach)
        curved = torch.einsum("sij,bi,bj->bs", bent.to(state), pose, pose)
        return 0.5 * torch.tanh(pose @ linear.T.to(state) + curved)

    def _static(self, action: Tensor) -> Tensor:
        generator = torch_generator(self.seed, "soft platform actuators")
        angle = 2.0 * math.pi * torch.arange(self.inputs, dtype=torch.float64) / self.inputs
        if self.inputs == 2:  # two tendons pull at right angles
            angle = torch.tensor([0.0, 0.5 * math.pi], dtype=torch.float64)
        share = torch.full_like(angle, 1.0 / self.inputs)
        geometry = torch.stack([share, angle.cos(), angle.sin()])
        geometry[1:] *= 2.0 / max(self.inputs, 2)
        noise = torch.randn(3, self.inputs, generator=generator, dtype=torch.float64)
        bent = torch.randn(3, self.inputs, self.inputs, generator=generator, dtype=torch.float64)
        matrix = (geometry + 0.05 * noise).to(action)
        scaled = (2.0 * action - self.high - self.low) / (self.high - self.low)
        curved = 0.15 / self.inputs * torch.einsum("pij,bi,bj->bp", bent.to(action), scaled, scaled)
        pose = torch.tanh(scaled @ matrix.T + curved) * action.new_tensor(self.reach)
        if self.dome is None:
            return pose
        heave = -self.dome * pose[:, 1:].square().sum(1, keepdim=True)
        return torch.cat([heave, pose[:, 1:]], 1)


TENDON = SoftPlatform(
    inputs=2,
    sensors=11,
    low=-1.75,
    high=0.83,
    start=-0.46,
    reach=(0.4, 0.45, 0.45),
    dome=0.3,
    frequency_hz=2.5,
    damping=1.1,
    unit_m=0.1,
    period=0.008,
)
"""Two tendons [rad] tilt a plate with 11 optical signals; positions in 0.1 m."""

HASEL = SoftPlatform(
    inputs=6,
    sensors=18,
    low=-0.5,
    high=0.5,
    start=0.0,
    reach=(0.9, 1.1, 1.1),
    dome=None,
    frequency_hz=6.0,
    damping=0.7,
    unit_m=0.01,
    period=0.008,
)
"""Six electrohydraulic actuators move a plate with 18 magnetic signals; positions in 0.01 m."""

"""The point mass of D4RL's maze2d, in closed form."""

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.export.models import Motion, constant
from safectl.export.ops import Op
from safectl.export.trace import Tracer
from safectl.types import Gaussian

PERIOD = 0.01
"""Time between two actions [s]."""
SPEED_LIMIT = 5.0
"""Largest |velocity| per axis that a step begins with [m/s]; more is cut off."""
DECAY = 0.99761836
"""Share of the velocity that the damping of 1 N s/m leaves of a mass of 4.18879 kg."""
PUSH = 0.23816384
"""Change of the velocity under a full action, 100 N, in one step [m/s]."""


class PointMass:
    """v' = 0.99761836 clip(v, -5, 5) + 0.23816384 a, p' = p + 0.01 v': MuJoCo's update, no walls.

    State: positions (2) [m], velocities (2) [m/s]; action: fractions of 100 N, in [-1, 1]. The step
    is semi-implicit, so the action moves the position within the step, and `drift` and `gain` are
    the step divided by the period.
    """

    nx, nu = 4, 2

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return the change in a step without action, over the period."""
        return (self.predict(state, torch.zeros_like(state[:, :2])).mean - state) / PERIOD

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return the change per action in a step, over the period."""
        return (_gain(state) / PERIOD).expand(len(state), -1, -1)

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return the state one period later."""
        velocity = DECAY * state[:, 2:].clamp(-SPEED_LIMIT, SPEED_LIMIT) + PUSH * action
        mean = torch.cat([state[:, :2] + PERIOD * velocity, velocity], 1)
        return Gaussian(mean, mean.new_zeros(()).expand(len(mean), self.nx, self.nx))

    def motion(self, tracer: Tracer, state: str) -> Motion:
        """Append one step as drift + gain u."""
        position = tracer.slice(state, 0, 2, name="model_position")
        limits = tuple(
            tracer.constant(f"model_speed_{name}", [sign * SPEED_LIMIT] * 2)
            for name, sign in (("low", -1.0), ("high", 1.0))
        )
        speed = tracer.slice(state, 2, 4, name="model_speed")
        cut = tracer.op(Op("clip", (speed,), ("model_cut",), limits))
        coasting = tracer.affine(cut, [DECAY] * 2, [0.0] * 2, name="model_coasting")
        way = tracer.affine(coasting, [PERIOD] * 2, [0.0] * 2, name="model_way")
        arrived = tracer.add(position, way, name="model_arrived")
        drift = tracer.concat([arrived, coasting], name="model_drift")
        one = torch.zeros(1, dtype=torch.float64)
        gain = constant(tracer, state, _gain(one).numpy(), name="model_gain")
        return Motion(state, drift, gain, (0, 1, 2, 3), self.nu)


def stopping_distance(speed: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return an upper bound on the way that full braking covers, same shape as `speed`, [m].

    Without the damping the speeds after the steps are v - j PUSH, j = 1 to n = floor(v / PUSH):
    d(v) = PERIOD (n v - PUSH n (n + 1) / 2), the sum of the ways of these steps. It is increasing
    and d(v) >= PERIOD v' + d(v') for every v' in [0, max(v - PUSH, 0)], so a mass that brakes fully
    never passes the point at which it was to stop.
    """
    n = torch.floor(speed.detach() / PUSH)
    return PERIOD * (n * speed - 0.5 * PUSH * n * (n + 1.0))


def braking(state: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 2"]:
    """Return the action that brakes along the velocity: fully on the faster axis, or to rest."""
    velocity = DECAY * state[:, 2:].clamp(-SPEED_LIMIT, SPEED_LIMIT)
    fastest = velocity.abs().amax(1, keepdim=True)
    return -velocity / fastest.clamp(min=PUSH)


def _gain(like: Tensor) -> Tensor:
    """Return the change of the state per action in one step, shape (4, 2)."""
    axes = torch.eye(2, dtype=like.dtype, device=like.device)
    return torch.cat([PERIOD * PUSH * axes, PUSH * axes])

"""Keep a pole upright on a cart, gently: angle and rate have limits of their own."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from safectl.barriers import HalfSpaces
from safectl.dynamics import CartPole, CartPoleParameters
from safectl.errors import RangeError
from safectl.safeguards import Brake
from safectl.spec import Signal, Spec
from safectl_envs import canvas
from safectl_envs.normalised import Normalised, unit_of
from safectl_envs.world import Outcome

_TRACK = 2.4  # half of the track [m], as in Gymnasium's CartPole
_FALLEN = 0.5 * math.pi  # [rad]
_LOOK_AHEAD = 0.1  # [s]; from 0.2 rad/s the pole must then stop with 2 rad/s^2, 10 N give 11


@dataclass(frozen=True)
class CartPoleStab:
    """The cart-pole of Barto, Sutton and Anderson with a continuous force, in Euler steps.

    Reward: exp(-(5 x^2 + angle^2 + 0.01 force^2)), the force in [N].
    Cost: 1 while the angle [rad] or the rate [rad/s] is beyond `limit`. The toolkit that this task
    comes from also names a tolerance of 0.05 without saying which side it is on; it is not used.
    The episode ends when the cart leaves the track or the pole lies flat, not on a cost.

    World state = model state = observation: x [m], velocity [m/s], angle [rad], rate [rad/s].
    """

    period: float = 0.02
    """Time between two actions, and the Euler step [s]."""
    force: float = 10.0
    """Force at action 1 [N]."""
    limit: float = 0.2
    """Largest |angle| [rad] and |rate| [rad/s] without cost."""
    clearance: float = 1e-3
    """How much earlier the barrier stops [rad or rad/s]; more than float32 rounding."""
    horizon: int = 250
    """Steps per episode."""

    name = "CartPoleStab"
    cost_meaning = "pole angle beyond 0.2 rad, or rate beyond 0.2 rad/s"
    source = "cart-pole stabilisation of safe-control-gym, textbook dynamics"

    def __post_init__(self) -> None:
        if not (self.force > 0.0 and 0.0 < self.limit < _FALLEN):
            value = (self.force, self.limit)
            raise RangeError("force, limit", value=value, expected="positive; limit below pi/2")

    @cached_property
    def spec(self) -> Spec:
        """The state; the force as a fraction of its limit."""
        observation = (
            Signal("position", "m", -3.0, 3.0),
            Signal("velocity", "m/s", -20.0, 20.0),
            Signal("angle", "rad", -2.2, 2.2),
            Signal("rate", "rad/s", -20.0, 20.0),
        )
        unit = unit_of(self.force, "N")
        return Spec(observation, (Signal("force", unit, -1.0, 1.0),), self.period)

    @cached_property
    def dynamics(self) -> Normalised:
        """The core's cart-pole, with the force as a fraction of its limit."""
        return Normalised(CartPole(self.period), (self.force,))

    @cached_property
    def barrier(self) -> HalfSpaces:
        """|angle + 0.1 s rate| <= limit and |rate| <= limit, scaled to unit normals (4).

        The step moves the angle by period * rate, less than 0.1 s * rate, so the first pair keeps
        |angle| <= limit once it is kept. Within the set gravity turns the pole with at most
        3.2 rad/s^2 and 10 N turn it with 14 rad/s^2, so the set can be kept.
        """
        rows = [[-1.0, -_LOOK_AHEAD], [1.0, _LOOK_AHEAD], [0.0, -1.0], [0.0, 1.0]]
        normals = torch.tensor(rows, dtype=torch.float64)
        offsets = torch.full((4,), self.clearance - self.limit, dtype=torch.float64)
        return HalfSpaces(normals, offsets, positions=(2, 3))

    @cached_property
    def fallback(self) -> Brake:
        """Turn the pole slowly upright, which keeps the barrier's set; the cart may roll away.

        About the upright pole the angular acceleration is 15.8 angle - 1.46 force. The law makes it
        (-0.5 angle - rate) / 0.1 s, in [rad/s^2].
        """

        def law(state: Tensor) -> Tensor:
            angle, rate = state[:, 2:3], state[:, 3:4]
            return (15.8 * angle + (0.5 * angle + rate) / _LOOK_AHEAD) / (1.46 * self.force)

        return Brake(self.spec, law=law)

    def initial(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 4"]:
        """Draw x within 0.3 m and the angle within 0.1 rad, at rest."""
        draw = torch.rand(count, 2, generator=generator, device=generator.device)
        x, angle = ((2.0 * draw - 1.0) * draw.new_tensor([0.3, 0.1])).unbind(-1)
        return torch.stack([x, torch.zeros_like(x), angle, torch.zeros_like(x)], -1)

    def step(self, state: Float[Tensor, "batch 4"], action: Float[Tensor, "batch nu"]) -> Outcome:
        """Move, then judge the new state."""
        new = self.dynamics.predict(state, action).mean
        x, angle, rate = new[:, 0], new[:, 2], new[:, 3]
        force = self.force * action[:, 0]
        reward = torch.exp(-(5.0 * x.square() + angle.square() + 0.01 * force.square()))
        broken = (angle.abs() > self.limit) | (rate.abs() > self.limit)
        ended = (x.abs() > _TRACK) | (angle.abs() > _FALLEN)
        return Outcome(new, reward, broken.to(state.dtype), ended)

    def observe(self, state: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch nx"]:
        """Return the state."""
        return state.clone()

    def picture(
        self, state: Float[Tensor, " size"], trace: Float[Tensor, "points size"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the cart, the pole with the way of its tip, and the limits of the angle."""
        x, _, angle, rate = state.tolist()
        length, height = 2.0 * CartPoleParameters().half_length, 0.15
        board = canvas.Canvas(-1.2 * _TRACK, 1.2 * _TRACK, -0.9, 1.9)
        board.grid(0.5)
        for side in (-1.0, 1.0):
            reach = 1.25 * length
            tip = x + side * reach * math.sin(self.limit), height + reach * math.cos(self.limit)
            board.line([(x, height), tip], canvas.HAZARD, 2.0)
            board.line([(side * _TRACK, -0.3), (side * _TRACK, 0.3)], canvas.HAZARD_EDGE, 4.0)
        tips = [
            (px + length * math.sin(turn), height + length * math.cos(turn))
            for px, turn in trace[:, [0, 2]].tolist()
        ]
        board.line(tips, canvas.TRACE, 2.0)
        board.line([(-_TRACK, -0.12), (_TRACK, -0.12)], canvas.INK, 2.0)
        board.rectangle(x - 0.25, x + 0.25, -0.12, height, canvas.ROBOT)
        broken = abs(angle) > self.limit or abs(rate) > self.limit
        tip = x + length * math.sin(angle), height + length * math.cos(angle)
        board.line([(x, height), tip], canvas.HAZARD_EDGE if broken else canvas.INK, 7.0)
        board.disc((x, height), 0.05, canvas.PAPER, canvas.INK)
        board.disc((0.0, -0.3), 0.05, canvas.GOAL_EDGE)
        board.text(f"angle {angle:+.2f} rad, rate {rate:+.2f} rad/s, limits {self.limit:g}")
        return board.picture()

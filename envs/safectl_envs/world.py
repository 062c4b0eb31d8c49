"""What a simulated world is: pure functions of a state tensor with a batch axis.

The same functions serve one Gymnasium environment (`safectl_envs.env`) and thousands of copies
(`safectl_envs.batched`). Nothing here draws a random number but `World.initial`.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from safectl.errors import NonFiniteError, ShapeError
from safectl.safeguards import Brake
from safectl.spec import Spec
from safectl.types import Barrier, Dynamics


class Outcome(NamedTuple):
    """What one step of a world gives, one row per copy.

    Attributes:
        state: World states, shape (batch, size).
        reward: Shape (batch,).
        cost: 1 where the new state breaks the constraint, else 0, shape (batch,).
        terminated: True where the new state ends the episode, shape (batch,).
    """

    state: Float[Tensor, "batch size"]
    reward: Float[Tensor, " batch"]
    cost: Float[Tensor, " batch"]
    terminated: Bool[Tensor, " batch"]


@runtime_checkable
class World(Protocol):
    """A world whose whole condition is one row of numbers, the world state.

    The first `dynamics.nx` entries of that row are the state of `dynamics` and `barrier`, in their
    units; the rest is what else the world must remember, such as goals.
    """

    @property
    def spec(self) -> Spec:
        """Signals with units and bounds; an action unit such as `10 N` is the size of 1."""
        ...

    @property
    def dynamics(self) -> Dynamics:
        """The true model: `step` moves the model state exactly as `predict` says."""
        ...

    @property
    def barrier(self) -> Barrier:
        """A set of model states that can be kept for ever and in which the cost is zero."""
        ...

    @property
    def fallback(self) -> Brake:
        """An action for every model state that keeps the barrier's set."""
        ...

    @property
    def horizon(self) -> int:
        """Steps after which an episode is truncated."""
        ...

    @property
    def cost_meaning(self) -> str:
        """When a step costs 1, in a few words."""
        ...

    @property
    def source(self) -> str:
        """Where the task comes from."""
        ...

    def initial(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} size"]:
        """Draw float32 world states, inside the barrier's set, on the generator's device."""
        ...

    def step(
        self, state: Float[Tensor, "batch size"], action: Float[Tensor, "batch nu"]
    ) -> Outcome:
        """Move every row by one period under an action within its bounds."""
        ...

    def observe(self, state: Float[Tensor, "batch size"]) -> Float[Tensor, "batch nx"]:
        """Return what the robot's sensors say, in the order and units of `spec.observation`."""
        ...

    def picture(
        self, state: Float[Tensor, " size"], trace: Float[Tensor, "points size"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Draw one world state and the way that led to it."""
        ...


class Advance(NamedTuple):
    """An `Outcome` with the time limit: `steps` and `truncated` have the shape (batch,)."""

    state: Float[Tensor, "batch size"]
    steps: Float[Tensor, " batch"]
    reward: Float[Tensor, " batch"]
    cost: Float[Tensor, " batch"]
    terminated: Bool[Tensor, " batch"]
    truncated: Bool[Tensor, " batch"]


def advance(
    world: World,
    state: Float[Tensor, "batch size"],
    steps: Float[Tensor, " batch"],
    action: Tensor,
) -> Advance:
    """Move every row by one period, as real actuators would: an action beyond a bound saturates.

    Args:
        world: The world.
        state: World states, shape (batch, size).
        steps: Steps since each row's episode began, shape (batch,).
        action: Actions, shape (batch, nu), in the units of `world.spec.action`.

    Raises:
        ShapeError: If the action has another shape.
        NonFiniteError: If an action holds NaN or infinity. Wrap the environment in a `Guard`: a
            safeguard answers such an action with its fallback.
    """
    expected = (state.shape[0], world.spec.nu)
    if tuple(action.shape) != expected:
        raise ShapeError("action", expected=expected, got=tuple(action.shape))
    finite = action.isfinite()
    if not finite.all():
        count = int((~finite).sum())
        advice = "an actuator cannot follow it; check the policy or put a Guard around the world"
        raise NonFiniteError("action", count=count, size=action.numel(), advice=advice)
    low, high = action.new_tensor([world.spec.action_low, world.spec.action_high])
    new = world.step(state, action.clamp(low, high))
    steps = steps + 1.0
    truncated = (steps >= world.horizon) & ~new.terminated
    return Advance(new.state, steps, new.reward, new.cost, new.terminated, truncated)


def model_state(world: World, state: Float[Tensor, "batch size"]) -> Float[Tensor, "batch nx"]:
    """Cut the state of `world.dynamics` and `world.barrier` out of world states."""
    return state[:, : world.dynamics.nx]

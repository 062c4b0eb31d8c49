"""Thousands of copies of a world as tensors on one device."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.errors import RangeError
from safectl_envs.world import World, advance, model_state


class BatchedStep(NamedTuple):
    """What one step gives, one row per copy.

    Attributes:
        observation: Shape (count, nx); where an episode ended, the first one of the next episode.
        reward: Shape (count,).
        cost: 0 or 1, shape (count,); of the step, also where it was the last one.
        terminated: Shape (count,).
        truncated: Shape (count,).
        final_observation: Shape (count, nx); the last observation of an episode that ended, equal
            to `observation` elsewhere. Bootstrap from this one where `truncated`.
    """

    observation: Float[Tensor, "count nx"]
    reward: Float[Tensor, " count"]
    cost: Float[Tensor, " count"]
    terminated: Bool[Tensor, " count"]
    truncated: Bool[Tensor, " count"]
    final_observation: Float[Tensor, "count nx"]


class BatchedEnv:
    """Copies of one world that step together; an episode that ends starts anew in the same step.

    Everything lies on the generator's device. `step` reads back whether any episode ended, which is
    the only time that a device has to wait.

    Args:
        world: The world.
        count: Number of copies.
        generator: Draws the initial states, of all rows from one stream.
        dtype: Of the states, actions and observations.

    Raises:
        RangeError: If the count is not positive.
    """

    def __init__(
        self,
        world: World,
        count: int,
        generator: torch.Generator,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if count < 1:
            raise RangeError("count", value=count, expected="at least 1")
        self.world, self.count, self.generator, self.dtype = world, count, generator, dtype
        self.state = world.initial(count, generator).to(dtype)
        self.steps = self.state.new_zeros(count)

    @property
    def model_state(self) -> Float[Tensor, "count nx"]:
        """The true states of `world.dynamics`, shape (count, nx), in its units."""
        return model_state(self.world, self.state)

    def reset(self, seed: int | None = None) -> Float[Tensor, "count nx"]:
        """Start every copy anew and return the observations, shape (count, nx).

        Args:
            seed: Seeds the generator first; without one, it goes on.
        """
        if seed is not None:
            self.generator.manual_seed(seed)
        self.state = self.world.initial(self.count, self.generator).to(self.dtype)
        self.steps = self.state.new_zeros(self.count)
        return self.world.observe(self.state)

    def step(self, action: Float[Tensor, "..."]) -> BatchedStep:
        """Apply one action per copy for one period.

        Args:
            action: Shape (count, nu), in the units of `world.spec.action`.

        Raises:
            ShapeError: If the action has another shape.
            NonFiniteError: If an action holds NaN or infinity.
        """
        new = advance(self.world, self.state, self.steps, action.to(self.state))
        final = observation = self.world.observe(new.state)
        self.state, self.steps = new.state, new.steps
        rows = (new.terminated | new.truncated).nonzero().squeeze(-1)
        if len(rows):
            fresh = self.world.initial(len(rows), self.generator).to(self.dtype)
            self.state = new.state.index_copy(0, rows, fresh)
            self.steps = new.steps.index_fill(0, rows, 0.0)
            observation = final.index_copy(0, rows, self.world.observe(fresh))
        return BatchedStep(observation, new.reward, new.cost, new.terminated, new.truncated, final)

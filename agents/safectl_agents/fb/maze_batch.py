"""Many copies of the point-mass maze in one call of the simulator, and data that wander in it."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco import rollout
from numpy.typing import NDArray

from safectl.errors import ShapeError
from safectl.seed import numpy_generator
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.episodes import Episode
from safectl_agents.fb.point_mass_maze import (
    ARM,
    HALF_THICKNESS,
    RADIUS,
    REACH,
    START_HIGH,
    START_LOW,
)

_HELD = (5, 60)
"""Least number of steps for which a push is held, and one more than the most."""

Array = NDArray[np.float32]
Flags = NDArray[np.bool_]


class MazeBatch(VectorEnv[Array, Array, Array]):
    """Copies of the maze that step together, as `Domain` steps one; episodes end with the caller.

    Observation: position [m] and velocity [m/s], as the domain has them. Action: pushes in [-1, 1].
    The reward is zero.

    Args:
        copies: Number of copies.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012  as the base class has it

    def __init__(self, copies: int) -> None:
        self._physics = Domain("point_mass_maze").physics
        self.num_envs = copies
        self.single_observation_space = Box(-np.inf, np.inf, (4,), np.float32)
        self.single_action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, copies)
        self.action_space = batch_space(self.single_action_space, copies)
        self._states = np.zeros((copies, 5))  # time first, as the simulator stores them

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start all copies, where the domain starts or at `options["start"]`, shape (copies, 4).

        Raises:
            ShapeError: If the starts have another shape.
        """
        if options is not None and "start" in options:
            start = np.asarray(options["start"], np.float64)
        else:
            place = numpy_generator(seed or 0, "maze starts").uniform(
                START_LOW, START_HIGH, (self.num_envs, 2)
            )
            start = np.concatenate([place, np.zeros_like(place)], 1)
        if start.shape != (self.num_envs, 4):
            raise ShapeError("start", expected=(self.num_envs, 4), got=start.shape)
        self._states = np.concatenate([np.zeros((self.num_envs, 1)), start], 1)
        return start.astype(np.float32), {}

    def step(  # type: ignore[override]  # the base is generic without saying so
        self, actions: Array
    ) -> tuple[Array, Array, Flags, Flags, dict[str, Any]]:
        """Push every copy for one period."""
        self._states = self.run(actions[:, None])[:, -1]
        never, zero = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.float32)
        return self._states[:, 1:].astype(np.float32), zero, never, never.copy(), {}

    def run(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """Return what pushes (copies, steps, 2) lead to: times and states (copies, steps, 5)."""
        model, data = self._physics.model.ptr, self._physics.data.ptr
        states: NDArray[np.float64]
        states, _ = rollout.rollout(model, data, self._states, np.asarray(actions, np.float64))
        return states


def scatter(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw resting states anywhere in the maze, shape (count, 4), [m, m/s]."""
    thick, arm = HALF_THICKNESS + RADIUS, ARM + RADIUS
    found = np.zeros((0, 2))
    while len(found) < count:
        place = generator.uniform(-REACH, REACH, (2 * count, 2))
        away = np.abs(place)
        in_wall = (away < [thick, arm]).all(1) | (away < [arm, thick]).all(1)
        found = np.concatenate([found, place[~in_wall]])
    return np.concatenate([found[:count], np.zeros((count, 2))], 1)


class Way(NamedTuple):
    """A way through the maze.

    Attributes:
        states: Positions and velocities, shape (steps + 1, 4), [m, m/s].
        action: Pushes that led there, zero in the first row, shape (steps + 1, 2).
    """

    states: NDArray[np.float64]
    action: Array


def wandering(index: int, seed: int, steps: int = 1_000) -> Way:
    """Begin anywhere in the maze and hold random pushes for 0.1 s to 1.2 s each.

    Args:
        index: Number of the way; it depends on this and the seed only.
        seed: Of starts and pushes.
        steps: Length.
    """
    generator, batch = numpy_generator(seed, f"wander {index}"), MazeBatch(1)
    start = scatter(1, generator)
    pushes = generator.uniform(-1.0, 1.0, (steps, 2))
    lengths = generator.integers(*_HELD, steps)
    held = np.repeat(np.arange(len(lengths)), lengths)[:steps]
    action = np.concatenate([np.zeros((1, 2)), pushes[held]]).astype(np.float32)
    batch.reset(options={"start": start})
    return Way(np.concatenate([start, batch.run(action[None, 1:])[0, :, 1:]]), action)


def wander(numbers: Iterable[int], seed: int) -> Iterator[Episode]:
    """Make the episodes of these numbers, which wander, with the reward of every task."""
    domain = Domain("point_mass_maze")
    for index in numbers:
        states, action = wandering(index, seed, domain.episode_steps)
        yield Episode(
            states.astype(np.float32),
            action,
            domain.label(states, action),
            np.ones(len(states), np.float32),
            states,
        )

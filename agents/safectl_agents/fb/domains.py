"""Worlds without a reward of their own, in which every task is scored at every step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from dm_control import suite
from dm_control.utils import rewards
from numpy.typing import NDArray

from safectl.errors import ShapeError, UnknownNameError
from safectl.seed import derive
from safectl_agents.fb.arm import PLACES, make_arm, place_reward
from safectl_agents.fb.point_mass_maze import GOALS, goal_reward, make_maze
from safectl_agents.fb.simulators import DMSimulator, Simulator

Reward = Callable[[Any], float]
"""Maps the physics of a state to the reward on entering it."""

_SEED_BITS = 32
_STAND_M, _SPIN = 1.2, 5.0
"""Height of a standing torso [m]; angular momentum of a flip [kg m^2/s]."""


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """What is known of a domain.

    Attributes:
        make: Builds the simulator from a seed.
        tasks: Rewards by name.
        collected: Tasks whose rewards the collected files hold.
        nz: Published number of entries of a task.
        discount: Published discount per step.
        goals: Goal observations of tasks that are inferred from a goal, by name.
        ceilings: Scores of a controller that knows the world, by task, where there is one.
    """

    make: Callable[[int], Simulator]
    tasks: Mapping[str, Reward]
    collected: tuple[str, ...]
    nz: int = 50
    discount: float = 0.98
    goals: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)


class Domain:
    """One copy of a world.

    Args:
        name: One of `DOMAINS`.
        seed: Of the states in which episodes start.

    Raises:
        UnknownNameError: If there is no domain of this name.
    """

    def __init__(self, name: str, *, seed: int = 0) -> None:
        self.facts, self.name = facts_of(name), name
        self._simulator = self.facts.make(derive(seed, name) % 2**_SEED_BITS)
        self.episode_steps, self.period = self._simulator.episode_steps, self._simulator.period
        self.nu = self._simulator.nu
        self.nx = len(self.reset())

    def reset(self) -> NDArray[np.float32]:
        """Start an episode."""
        return self._simulator.reset()

    def step(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply an action in [-1, 1] for one period; the caller counts the steps."""
        return self._simulator.step(action)

    @property
    def physics(self) -> Any:  # noqa: ANN401  dm_control publishes no types
        """Return what rewards are functions of."""
        return self._simulator.physics

    def rewards(self) -> NDArray[np.float32]:
        """Return the reward of every task on entering the present state, shape (tasks,)."""
        return np.array([reward(self.physics) for reward in self.facts.tasks.values()], np.float32)

    def reward(self, task: str) -> float:
        """Return the reward of one task on entering the present state."""
        return self.facts.tasks[task](self.physics)

    def state(self) -> NDArray[np.float64]:
        """Return the state of the simulator, such as positions, velocities and activations."""
        return self._simulator.state()

    def label(
        self, states: NDArray[np.float64], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the rewards of every task on entering stored states by stored actions.

        Args:
            states: Simulator states after the actions, shape (samples, states).
            actions: Actions that led there, shape (samples, nu).

        Returns:
            Shape (samples, tasks).

        Raises:
            ShapeError: If the states are those of another world.
        """
        width = len(self.state())
        if states.shape != (len(actions), width) or actions.shape[1:] != (self.nu,):
            raise ShapeError("physics", expected=(len(actions), width), got=states.shape)
        labels = np.empty((len(states), len(self.facts.tasks)), np.float32)
        for row, (state, action) in enumerate(zip(states, actions, strict=True)):
            self._simulator.put(state, action)
            labels[row] = self.rewards()
        return labels


def facts_of(name: str) -> DomainFacts:
    """Return what is known of a domain.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    if name not in DOMAINS:
        raise UnknownNameError("domain", name, known=list(DOMAINS))
    return DOMAINS[name]


def _make_walker(seed: int) -> DMSimulator:
    random = np.random.RandomState(seed)
    return DMSimulator(suite.load("walker", "stand", task_kwargs={"random": random}))


def _make_maze(seed: int) -> DMSimulator:
    return DMSimulator(make_maze(np.random.RandomState(seed)))


def _stand(physics: Any) -> float:  # noqa: ANN401  dm_control publishes no types
    height = rewards.tolerance(
        physics.torso_height(), bounds=(_STAND_M, float("inf")), margin=_STAND_M / 2.0
    )
    return float((3.0 * height + 0.5 * (1.0 + physics.torso_upright())) / 4.0)


def _move(speed: float) -> Reward:
    """Return the reward for walking at a speed [m/s]; half of it is worth half."""

    def reward(physics: Any) -> float:  # noqa: ANN401
        move = rewards.tolerance(
            physics.horizontal_velocity(),
            bounds=(speed, float("inf")),
            margin=speed / 2.0,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return float(_stand(physics) * (5.0 * move + 1.0) / 6.0)

    return reward


def _flip(physics: Any) -> float:  # noqa: ANN401
    spin = rewards.tolerance(
        physics.named.data.subtree_angmom["torso"][1],
        bounds=(_SPIN, float("inf")),
        margin=_SPIN,
        value_at_margin=0.0,
        sigmoid="linear",
    )
    return float(_stand(physics) * (5.0 * spin + 1.0) / 6.0)


DOMAINS: Mapping[str, DomainFacts] = MappingProxyType(
    {
        "point_mass_maze": DomainFacts(
            make=_make_maze,
            tasks={name: goal_reward(name) for name in GOALS},
            collected=tuple(GOALS),
            nz=100,
            discount=0.99,
            goals={name: (*goal, 0.0, 0.0) for name, goal in GOALS.items()},
            ceilings=dict(zip(GOALS, (952.0, 794.0, 792.0, 551.0), strict=True)),
        ),
        "walker": DomainFacts(
            make=_make_walker,
            tasks={"stand": _stand, "walk": _move(1.0), "run": _move(8.0), "flip": _flip},
            collected=("stand",),
        ),
        "planar_reach": DomainFacts(
            make=make_arm,
            tasks={name: place_reward(name) for name in PLACES},
            collected=tuple(PLACES),
        ),
    }
)
"""Domains by name; the first two have observations, tasks and episodes as in ExORL."""

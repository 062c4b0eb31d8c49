"""What a domain asks of a simulator: of dm_control, and of a world of `safectl_envs`."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from dm_control.rl import control
from numpy.typing import NDArray

from safectl.errors import RangeError
from safectl.spec import Spec
from safectl_envs.world import World


class Simulator(Protocol):
    """A world that is moved step by step, and set to any state that it was in.

    Attributes:
        episode_steps: Steps of an episode; none ends earlier.
        period: Time between two actions [s].
        nu: Actions, each in [-1, 1].
    """

    episode_steps: int
    period: float
    nu: int

    def reset(self) -> NDArray[np.float32]:
        """Start an episode; return the observation."""
        ...

    def step(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply an action for one period; return the observation."""
        ...

    @property
    def physics(self) -> Any:  # noqa: ANN401  dm_control publishes no types
        """What rewards are functions of."""
        ...

    def state(self) -> NDArray[np.float64]:
        """Return all that `put` needs."""
        ...

    def put(self, state: NDArray[np.float64], action: NDArray[np.float32]) -> None:
        """Go to a stored state that was entered by an action."""
        ...


class DMSimulator:
    """A task of dm_control; its physics are those of MuJoCo."""

    def __init__(self, environment: control.Environment) -> None:
        self._environment = environment
        self.episode_steps = round(environment._step_limit)
        self.period = float(environment.control_timestep())
        self.nu = int(environment.action_spec().shape[0])

    def reset(self) -> NDArray[np.float32]:
        """Start an episode."""
        return _flat(self._environment.reset().observation)

    def step(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply an action for one period."""
        return _flat(self._environment.step(action).observation)

    @property
    def physics(self) -> Any:  # noqa: ANN401
        """Return the physics of MuJoCo."""
        return self._environment.physics

    def state(self) -> NDArray[np.float64]:
        """Return positions, velocities and activations."""
        return np.array(self.physics.get_state(), np.float64)

    def put(self, state: NDArray[np.float64], action: NDArray[np.float32]) -> None:
        """Set them, and what follows from them."""
        with self.physics.reset_context():
            self.physics.set_state(state)
            self.physics.set_control(action)


class WorldSimulator:
    """A world of `safectl_envs` that never terminates; its physics are its world state.

    Args:
        world: The world.
        hidden: Observations that are left out, such as the way to its own goal.
        seed: Of the starts.
    """

    def __init__(self, world: World, hidden: Sequence[str], seed: int) -> None:
        self._world = world
        self.spec = visible(world.spec, hidden)
        kept = [signal.name not in hidden for signal in world.spec.observation]
        self._kept = torch.tensor(kept).nonzero()[:, 0]
        self.episode_steps, self.period = world.horizon, world.spec.period
        self.nu = world.spec.nu
        self._generator = torch.Generator().manual_seed(seed)
        self.physics = torch.zeros(1, 0)

    def reset(self) -> NDArray[np.float32]:
        """Draw a start."""
        self.physics = self._world.initial(1, self._generator)
        return self._observe()

    def step(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply an action for one period; raise `RangeError` where the world ends the episode."""
        row = torch.from_numpy(np.asarray(action, np.float32).clip(-1.0, 1.0))[None]
        after = self._world.step(self.physics, row)
        if bool(after.terminated.any()):
            raise RangeError("terminated", value=True, expected="a world whose episodes never end")
        self.physics = after.state
        return self._observe()

    def state(self) -> NDArray[np.float64]:
        """Return the world state."""
        return self.physics[0].double().numpy()

    def put(self, state: NDArray[np.float64], action: NDArray[np.float32]) -> None:
        """Set the world state, which knows all of the action that counts."""
        del action
        self.physics = torch.from_numpy(state).float()[None]

    def _observe(self) -> NDArray[np.float32]:
        return self._world.observe(self.physics)[0, self._kept].numpy()


def visible(spec: Spec, hidden: Sequence[str]) -> Spec:
    """Return signals without those of these names."""
    seen = tuple(signal for signal in spec.observation if signal.name not in hidden)
    return Spec(seen, spec.action, spec.period)


def _flat(observation: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)

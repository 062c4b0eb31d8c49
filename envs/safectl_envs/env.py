"""One world as a Gymnasium environment."""

from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from safectl.spec import Spec
from safectl_envs.catalogue import find_world
from safectl_envs.graphics import check_render_mode
from safectl_envs.spaces import box_of
from safectl_envs.world import World, advance, model_state


class SafeEnv(gymnasium.Env[Float32[np.ndarray, " nx"], Float[np.ndarray, "..."]]):
    """A world with Gymnasium's interface: a batch of one, bit for bit.

    The cost is `info["cost"]`, 0.0 or 1.0, in `step` only. An action beyond its bounds saturates;
    one that is not finite raises `NonFiniteError`. The time limit is part of the environment.

    Attributes:
        world: The world, with its `spec`, `dynamics`, `barrier` and `fallback`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - as in gymnasium.Env

    def __init__(self, world: World | str, *, render_mode: str | None = None) -> None:
        """Wrap a world.

        Args:
            world: A world, or the name of one with its defaults.
            render_mode: `rgb_array` or none.

        Raises:
            UnknownNameError: If there is no world of that name.
            RangeError: If the render mode is another one.
        """
        check_render_mode(render_mode)
        self.world = find_world(world) if isinstance(world, str) else world
        self.render_mode = render_mode
        self.metadata = self.metadata | {"render_fps": round(1.0 / self.world.spec.period)}
        self.observation_space = box_of(self.world.spec.observation)
        self.action_space = box_of(self.world.spec.action)
        self._generator = torch.Generator()
        self._is_seeded = False
        self._state: Tensor | None = None
        self._steps = torch.zeros(1)
        self._trace: list[Tensor] = []

    @property
    def signals(self) -> Spec:
        """Names, units and bounds of observation and action (`spec` is Gymnasium's own)."""
        return self.world.spec

    @property
    def model_state(self) -> Float[Tensor, "1 nx"]:
        """The true state of `world.dynamics`, shape (1, nx), in its units."""
        return model_state(self.world, self._started())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32[np.ndarray, " nx"], dict[str, Any]]:
        """Start an episode; the same seed gives the same episode.

        Args:
            seed: Seed of this and the following episodes; without one, the generator goes on.
            options: Not used.

        Returns:
            Observation, shape (nx,), and empty information.
        """
        super().reset(seed=seed)
        if seed is None and not self._is_seeded:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self._generator.manual_seed(seed)
            self._is_seeded = True
        self._state = self.world.initial(1, self._generator)
        self._steps, self._trace = torch.zeros(1), [self._state[0]]
        return self._observe(self._state), {}

    def step(
        self, action: Float[np.ndarray, "..."]
    ) -> tuple[Float32[np.ndarray, " nx"], float, bool, bool, dict[str, Any]]:
        """Apply an action for one period.

        Args:
            action: Shape (nu,), in the units of `signals.action`.

        Returns:
            Observation, shape (nx,), reward, whether the state is terminal, whether the time is up,
            and `{"cost": 0.0 or 1.0}`.

        Raises:
            ShapeError: If the action has another shape.
            NonFiniteError: If the action holds NaN or infinity.
            gymnasium.error.ResetNeeded: Before the first `reset`.
        """
        command = torch.as_tensor(np.asarray(action, dtype=np.float32)).unsqueeze(0)
        new = advance(self.world, self._started(), self._steps, command)
        self._state, self._steps = new.state, new.steps
        if self.render_mode is not None:
            self._trace.append(new.state[0])
        info = {"cost": float(new.cost)}
        terminated, truncated = bool(new.terminated), bool(new.truncated)
        return self._observe(new.state), float(new.reward), terminated, truncated, info

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:  # type: ignore[override]  # the base names a type variable
        """Return a picture of the world and of the way since `reset`, or none without the mode."""
        if self.render_mode is None:
            return None
        return self.world.picture(self._started()[0], torch.stack(self._trace))

    def _started(self) -> Tensor:
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset before anything else")
        return self._state

    def _observe(self, state: Tensor) -> Float32[np.ndarray, " nx"]:
        observation: Float32[np.ndarray, " nx"] = self.world.observe(state)[0].numpy()
        return observation

"""Copies of a world as a Gymnasium vector environment, with NumPy arrays at its edge."""

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from safectl.errors import RangeError
from safectl.spec import Spec
from safectl_envs.batched import BatchedEnv
from safectl_envs.catalogue import find_world
from safectl_envs.spaces import box_of
from safectl_envs.world import World

Array = Float[np.ndarray, " count"] | Bool[np.ndarray, " count"]


class SafeVectorEnv(VectorEnv[Float32[np.ndarray, "count nx"], Float[np.ndarray, "..."], Array]):
    """`BatchedEnv` with Gymnasium's vector interface; autoreset in the same step.

    `info["cost"]` is an array of the costs of this step. Where an episode ended, the array
    `info["final_obs"]` holds its last observation and `info["final_info"]["cost"]` its last cost;
    `info["_final_obs"]` marks these rows. In the others the array repeats the observation.
    """

    def __init__(
        self,
        world: World | str,
        *,
        num_envs: int = 1,
        device: str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        """Make copies of a world.

        Args:
            world: A world, or the name of one with its defaults.
            num_envs: Number of copies.
            device: Where they are simulated.
            render_mode: `rgb_array`, or none, which also refuses `render`.

        Raises:
            UnknownNameError: If there is no world of that name.
            RangeError: If the number is not positive.
        """
        self.world = find_world(world) if isinstance(world, str) else world
        self.batched = BatchedEnv(self.world, num_envs, torch.Generator(device))
        self.num_envs, self.render_mode = num_envs, render_mode
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": round(1.0 / self.world.spec.period),
            "autoreset_mode": AutoresetMode.SAME_STEP,
        }
        self.single_observation_space = box_of(self.world.spec.observation)
        self.single_action_space = box_of(self.world.spec.action)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._is_seeded = False

    @property
    def signals(self) -> Spec:
        """Names, units and bounds of observation and action (`spec` is Gymnasium's own)."""
        return self.world.spec

    @property
    def model_state(self) -> Float[Tensor, "count nx"]:
        """The true states of `world.dynamics`, shape (count, nx), in its units."""
        return self.batched.model_state

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32[np.ndarray, "count nx"], dict[str, Any]]:
        """Start every copy anew; the same seed gives the same episodes.

        Args:
            seed: One seed for all copies, whose initial states come from one stream. Without one,
                the stream goes on.
            options: Not used.

        Returns:
            Observations, shape (count, nx), and empty information.

        Raises:
            RangeError: If there is a list of seeds: the rows share one stream.
        """
        if isinstance(seed, list):
            raise RangeError("seed", value=seed, expected="one seed for all copies, or None")
        super().reset(seed=seed)
        if seed is None and not self._is_seeded:
            seed = int(self.np_random.integers(2**31))
        self._is_seeded = True
        return _array(self.batched.reset(seed)), {}

    def step(
        self, actions: Float[np.ndarray, "..."]
    ) -> tuple[Float32[np.ndarray, "count nx"], Array, Array, Array, dict[str, Any]]:
        """Apply one action per copy for one period.

        Args:
            actions: Shape (count, nu), in the units of `signals.action`.

        Returns:
            Observations, rewards, terminations, truncations and information, see above.

        Raises:
            ShapeError: If the actions have another shape.
            NonFiniteError: If an action holds NaN or infinity.
        """
        new = self.batched.step(torch.as_tensor(np.asarray(actions, dtype=np.float32)))
        cost, done = _array(new.cost), _array(new.terminated | new.truncated)
        info: dict[str, Any] = {"cost": cost, "_cost": np.ones_like(done)}
        if done.any():
            info |= {"final_obs": _array(new.final_observation), "_final_obs": done}
            info |= {"final_info": {"cost": cost, "_cost": done}, "_final_info": done}
        terminated, truncated = _array(new.terminated), _array(new.truncated)
        return _array(new.observation), _array(new.reward), terminated, truncated, info

    def render(self) -> tuple[UInt8[np.ndarray, "height width 3"], ...] | None:  # type: ignore[override]  # the base names a type variable
        """Return one picture per copy, without the way that led there, or none without the mode."""
        if self.render_mode is None:
            return None
        states = self.batched.state.cpu()
        return tuple(self.world.picture(row, row.unsqueeze(0)) for row in states)


def _array(tensor: Tensor) -> Any:  # noqa: ANN401 - NumPy's stubs name neither shape nor kind
    return tensor.cpu().numpy()

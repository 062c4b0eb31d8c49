"""Safety-Gymnasium 1.0.0 on Python 3.11, Gymnasium 1 and NumPy 2, as Gymnasium environments.

`register_safety_gymnasium` adds `SafetyPointGoal1-v0` and its siblings to Gymnasium's registry; the
package itself is imported when the first of them is made. The tasks are those of Ji et al., "Safety
Gymnasium", NeurIPS 2023, in the code of release 1.0.0. What differs from that release:

* `step` returns five values; the cost, 0.0 or 1.0 in every task here, is `info["cost"]`.
* Observations and actions are float32. The simulation stays in float64.
* Only Gymnasium's time limit truncates an episode, so `max_episode_steps` can be chosen in `make`.
* Without a seed, the first episode is drawn from the environment's own generator, not NumPy's.
* The sky of the navigation tasks is a gradient. The original pictures take 190 MB of memory for
  each environment and 0.2 s of each reset.
* The camera of the navigation tasks is `fixedfar` unless another one is chosen.

Left out: the vision, Race and Fading tasks (the published wheel lacks the textures of Race), the
keyboard variants, the multi-agent tasks, and version 0 of the velocity tasks.

The package pins versions that do not install here: `pip install --no-deps safety-gymnasium==1.0.0`.
"""

import sys
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs import registration
from gymnasium.spaces import Box
from jaxtyping import Float, Float32

from safectl.errors import UnknownNameError
from safectl_envs.safety_import import BUILDER, Untyped, construct
from safectl_envs.safety_tasks import SAFETY_TASKS

_SEEDS = 2**32  # what NumPy's older generator accepts, which the navigation tasks use


class SafetyGymnasiumEnv(gymnasium.Env[Float32[np.ndarray, " nx"], Float[np.ndarray, " nu"]]):
    """A task of Safety-Gymnasium with Gymnasium's interface.

    Attributes:
        inner: The environment of Safety-Gymnasium, whose `step` returns six values.
        period: Time between two steps, [s].
        speed_limit: Speed above which a velocity task costs 1.0, [m/s]; none for a navigation task.
    """

    metadata = {"render_modes": ["rgb_array", "depth_array"], "render_fps": 50}  # noqa: RUF012 - as in gymnasium.Env

    def __init__(
        self,
        task: str,
        *,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        camera_id: int | None = None,
        camera_name: str | None = None,
    ) -> None:
        """Make a task.

        Args:
            task: A key of `SAFETY_TASKS`.
            render_mode: `rgb_array`, `depth_array` or none. In `gymnasium.make` also `human`.
            width: Width of a picture, [pixel].
            height: Height of a picture, [pixel].
            camera_id: Number of a camera of the model, instead of a name.
            camera_name: Name of a camera of the model.

        Raises:
            UnknownNameError: If the task is not in `SAFETY_TASKS`.
            MissingExtra: If Safety-Gymnasium or something that it imports is not installed.
        """
        if task not in SAFETY_TASKS:
            raise UnknownNameError("Safety-Gymnasium task", task, known=tuple(SAFETY_TASKS))
        entry_point, robot = SAFETY_TASKS[task].entry_point, SAFETY_TASKS[task].robot
        options: dict[str, object] = {"render_mode": render_mode, "width": width, "height": height}
        if entry_point == BUILDER:
            options |= {"task_id": task, "config": {"agent_name": robot}}
            if camera_id is None and camera_name is None:
                camera_name = "fixedfar"
        options |= {"camera_id": camera_id, "camera_name": camera_name}
        self.inner: Untyped = construct(entry_point, options)
        self.speed_limit: float | None = getattr(self.inner, "_velocity_threshold", None)
        if self.speed_limit is None:
            self.inner.task.num_steps = sys.maxsize
            timestep = self.inner.task.agent.engine.model.opt.timestep
            self.period = float(timestep * self.inner.task.sim_conf.frameskip_binom_n)
        else:
            self.period = float(self.inner.dt)
        self.render_mode = render_mode
        self.metadata = self.metadata | {"render_fps": round(1.0 / self.period)}
        self.observation_space = _as_float32(self.inner.observation_space)
        self.action_space = _as_float32(self.inner.action_space)
        self._is_seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32[np.ndarray, " nx"], dict[str, Any]]:
        """Start an episode; the same seed gives the same episode.

        Args:
            seed: Seed of this and the following episodes; without one, the generator goes on.
            options: Not used by the tasks.

        Returns:
            Observation, shape (nx,), and information, which may be empty.
        """
        super().reset(seed=seed)
        if seed is None and not self._is_seeded:
            seed = int(self.np_random.integers(_SEEDS))
        self._is_seeded = True
        seed = None if seed is None else seed % _SEEDS
        observation, info = self.inner.reset(seed=seed, options=options)
        return observation.astype(np.float32), _as_plain(info)

    def step(
        self, action: Float[np.ndarray, " nu"]
    ) -> tuple[Float32[np.ndarray, " nx"], float, bool, bool, dict[str, Any]]:
        """Apply an action for one period.

        Args:
            action: Action, shape (nu,), in the units of the model's actuators.

        Returns:
            Observation, shape (nx,), reward, whether the state is terminal, `False`, and
            information: the cost under `cost`, its parts under `cost_*`.
        """
        control = np.asarray(action, dtype=np.float64)
        observation, reward, cost, terminated, truncated, info = self.inner.step(control)
        plain = _as_plain({**info, "cost": cost})
        observation = observation.astype(np.float32)
        return observation, float(reward), bool(terminated), bool(truncated), plain

    def render(self) -> Untyped:
        """Return a picture, (height, width, 3), or depths in [0, 1], (height, width)."""
        return None if self.render_mode is None else self.inner.render()

    def close(self) -> None:
        """Free the graphics contexts."""
        if self.speed_limit is not None:
            self.inner.close()
            return
        for viewer in self.inner.task._viewers.values():
            viewer.close()
        self.inner.task._viewers.clear()


def register_safety_gymnasium() -> tuple[str, ...]:
    """Add `SAFETY_TASKS` to Gymnasium's registry, without importing Safety-Gymnasium.

    Returns:
        The names that `gymnasium.make` now accepts. Names that are there already are left alone.
    """
    for name, task in SAFETY_TASKS.items():
        if name not in registration.registry:
            gymnasium.register(
                name,
                entry_point=f"{__name__}:{SafetyGymnasiumEnv.__name__}",
                max_episode_steps=task.max_episode_steps,
                reward_threshold=task.reward_threshold,
                kwargs={"task": name},
            )
    return tuple(SAFETY_TASKS)


def _as_float32(space: Untyped) -> Box:
    return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def _as_plain(info: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in info.items()}

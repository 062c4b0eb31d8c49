"""A Gymnasium vector environment as stable-baselines3's `VecEnv`: one call steps all copies."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from safectl.errors import ConfigError

Array = NDArray[Any]
Infos = list[dict[str, Any]]


class GymnasiumVecEnv(VecEnv):
    """Adapts an environment that restarts finished copies within the same step.

    Of its `info` only `cost` is passed on. Without a seed `reset` goes on with the copies' streams.

    Raises:
        ConfigError: If finished copies are restarted in another step.
    """

    def __init__(self, env: VectorEnv[Array, Array, Array]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ConfigError(str(env), f"restarts copies by {mode}, expected SAME_STEP")
        self.env = env
        self._actions = np.zeros((0,))
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Array:
        """Restart every copy, from the seed of the first if one is set."""
        observation, _ = self.env.reset(seed=self._seeds[0])
        self._reset_seeds()
        return observation

    def step_async(self, actions: Array) -> None:
        """Take note of actions of shape (batch, nu)."""
        self._actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, Infos]:
        """Step every copy.

        Returns:
            Observations (batch, nx), rewards (batch,), dones (batch,) and one `info` each.
        """
        observation, rewards, terminated, truncated, info = self.env.step(self._actions)
        dones = terminated | truncated
        infos: Infos = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if "cost" in info:
            for one, cost in zip(infos, _costs(info, dones), strict=True):
                one["cost"] = cost
        for index in np.flatnonzero(dones):
            infos[index]["terminal_observation"] = info["final_obs"][index]
            infos[index]["TimeLimit.truncated"] = bool(truncated[index] & ~terminated[index])
        return observation, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Release the copies."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the whole, once per copy asked for."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: VecEnvIndices = None) -> None:
        """Refuse: the copies have no attributes of their own."""
        raise NotImplementedError(f"copies share {attr_name}")

    def env_method(
        self, method_name: str, *method_args: object, indices: VecEnvIndices = None, **_: object
    ) -> list[Any]:
        """Refuse: the copies have no methods of their own."""
        raise NotImplementedError(f"copies share {method_name}")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return that no copy is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[Array | None]:
        """Return one picture per copy, or None each without a render mode."""
        pictures: tuple[Array, ...] | None = self.env.render()
        return [None] * self.num_envs if pictures is None else list(pictures)


def _costs(info: dict[str, Any], dones: Array) -> list[float]:
    """Return the cost of this step per copy; that of a last step may lie in `final_info`."""
    costs = np.array(info["cost"], dtype=np.float64)
    final = info.get("final_info", {})
    if "cost" in final:
        costs = np.where(dones, final["cost"], costs)
    found: list[float] = costs.tolist()
    return found

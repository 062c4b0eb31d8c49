"""The safeguard of the velocity tasks: keep the robot's speed at or below the task's limit.

There is no model of these robots, so the guard learns one while the agent learns: the next speed
as an affine function of the action (`OnlineSafetyLayer`). The speed that costs is the displacement
over a step; the observed joint velocity stands in for the present speed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safectl.errors import FileFormatError, UnknownNameError
from safectl.safeguards.online import OnlineOptions, OnlineSafetyLayer
from safectl.safeguards.safety_layer import SafetyLayer
from safectl.seed import torch_generator
from safectl.types import Decision
from safectl_envs.safety_gymnasium import SafetyGymnasiumEnv
from safectl_envs.safety_tasks import SAFETY_TASKS
from safectl_envs.signals import spec_of

Env = gym.Env[NDArray[Any], NDArray[Any]]

DEFAULTS = OnlineOptions(delta=0.002)
"""A gait repeats its errors: one per thousand steps is about what a 1000-step episode may show."""

_FORWARD = ("rootx_velocity", "slider1_velocity")
_PLANAR = ("root_vx", "root_vy")


class SpeedGuard:
    """A safeguard and a learner: `filter` guards, `learn` is told what happened.

    Args:
        env: A velocity task of Safety-Gymnasium whose observation names its forward speed.
        seed: Seed of the model's weights and minibatches.
        options: When and how to learn.

    Raises:
        UnknownNameError: If the environment is no such task.
    """

    def __init__(self, env: Env, *, seed: int, options: OnlineOptions | None = None) -> None:
        inner = env.unwrapped
        if not isinstance(inner, SafetyGymnasiumEnv) or inner.speed_limit is None:
            raise _no_speed(env)
        self.spec = spec_of(env)
        self._columns = _speed_columns(env)
        if not self._columns:
            raise _no_speed(env)
        self._layer = OnlineSafetyLayer(
            self.spec,
            limit=inner.speed_limit,
            signal=self.speed,
            generator=torch_generator(seed, "speed guard"),
            options=options or DEFAULTS,
        )

    @property
    def claim(self) -> str:
        """The claim of the fitted layer, or that there is none yet."""
        return self._layer.claim

    @property
    def layer(self) -> SafetyLayer | None:
        """The fitted layer; None until enough was seen."""
        return self._layer.layer

    def require_layer(self) -> SafetyLayer:
        """Return the fitted layer.

        Raises:
            FileFormatError: If there is none yet.
        """
        if self.layer is None:
            advice = "train for more steps"
            raise FileFormatError("the speed guard", "has no model yet", advice)
        return self.layer

    @property
    def column(self) -> int | None:
        """Entry of the observation that is the speed; None where it is made of two."""
        return self._columns[0] if len(self._columns) == 1 else None

    def speed(self, observation: Tensor) -> Tensor:
        """Return the observed speed [m/s], shape (batch, 1), from observations (batch, nx)."""
        velocity = observation[:, self._columns]
        return velocity if len(self._columns) == 1 else velocity.norm(dim=1, keepdim=True)

    def filter(self, observation: Tensor, action: Tensor, /) -> Decision:
        """Return the nearest action whose predicted speed keeps the limit, or the fallback."""
        return self._layer.filter(observation, action)

    def learn(
        self,
        observation: NDArray[np.floating],
        executed: NDArray[np.floating],
        infos: Sequence[Mapping[str, Any]],
    ) -> None:
        """Take note of one step of every environment; the layer refits itself in between."""
        keys = ("x_velocity", "y_velocity")[: len(self._columns)]
        velocity = np.array([[info[key] for key in keys] for info in infos])
        speed = velocity if len(keys) == 1 else np.linalg.norm(velocity, axis=1, keepdims=True)
        self._layer.observe(
            torch.as_tensor(observation).float(),
            torch.as_tensor(executed).float(),
            torch.as_tensor(speed).float(),
        )

    def state(self) -> dict[str, Tensor]:
        """Return everything learned, as named tensors."""
        return self._layer.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken.

        Raises:
            FileFormatError: If the tensors belong to another guard.
        """
        self._layer.load_state(state)


def observes_its_speed(env: Env) -> bool:
    """Return whether an environment limits a speed that it also observes."""
    inner = env.unwrapped
    has_limit = isinstance(inner, SafetyGymnasiumEnv) and inner.speed_limit is not None
    return has_limit and bool(_speed_columns(env))


def _speed_columns(env: Env) -> list[int]:
    """Return where the forward speed, or both parts of the planar one, are in the observation."""
    names = [signal.name for signal in spec_of(env).observation]
    forward = [names.index(name) for name in _FORWARD if name in names]
    planar = [names.index(name) for name in _PLANAR if name in names]
    return forward or (planar if len(planar) == len(_PLANAR) else [])


def _no_speed(env: Env) -> UnknownNameError:
    name = env.spec.id if env.spec else str(env)
    known = [task for task in SAFETY_TASKS if "Velocity" in task and "Humanoid" not in task]
    return UnknownNameError("task for a speed guard (it must observe its speed)", name, known=known)

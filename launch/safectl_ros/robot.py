"""A Gymnasium environment as a robot: actuators with limits, simulated time and the truth."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import yaml
from jaxtyping import Float
from torch import Tensor

import safectl_envs
from safectl.errors import ConfigError, UnknownNameError
from safectl.spec import Signal, Spec
from safectl_envs.env import SafeEnv
from safectl_envs.signals import spec_of
from safectl_ros.adapters import Interface, make_interface
from safectl_ros.adapters.base import COMMANDS
from safectl_ros.adapters.interface import Array

_NANOSECONDS = 1e9
_POSE = ("x", "y", "heading")  # the first entries of the model state of a planar world


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step was worth, by the simulator's own account.

    Attributes:
        reward: Reward of the step.
        cost: Cost of the step; above zero where it broke the task's constraint.
        terminated: Whether the new state ends the episode.
        truncated: Whether the time is up.
    """

    reward: float
    cost: float
    terminated: bool
    truncated: bool


class SimulatedRobot:
    """One environment with the interface of a robot.

    Simulated time starts at one period, goes on by one period per step and per restart, and never
    back. An action beyond its limits saturates.

    Args:
        env: Environment with one-dimensional boxes.
        kind: Which messages it speaks, one of `safectl_ros.adapters.KINDS`.
        is_stamped: Whether its commands are of the stamped type.

    Attributes:
        interface: The messages.
        stamp_ns: Simulated time of the present state [ns].
        is_over: Whether the episode has ended and the next step is a restart.
        violations: Number of steps with a cost since the start.

    Raises:
        ShapeError: If a space is not a one-dimensional box.
        UnknownNameError: If the environment has not the signals of that kind.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], kind: str = "vector", *, is_stamped: bool = True
    ) -> None:
        spec = spec_of(env)
        signals = _base_signals(env, spec) if kind == "base" else spec.observation
        shown = Spec(signals, spec.action, spec.period)
        self.interface: Interface = make_interface(kind, shown, is_stamped=is_stamped)
        self.vector = make_interface("vector", spec)
        self._env = env
        self._period_ns = round(spec.period * _NANOSECONDS)
        self._low, self._high = np.array(spec.action_low), np.array(spec.action_high)
        self._observation: Float[np.ndarray, " nx"] = np.zeros(spec.nx)
        self.stamp_ns = 0
        self.is_over = True
        self.violations = 0

    @property
    def observation(self) -> Array:
        """Newest observation of the environment, shape (nx,)."""
        return self._observation.astype(np.float64)

    @property
    def state(self) -> Array:
        """What the robot's own topic says, in the order of `interface.spec.observation`."""
        names = [signal.name for signal in self.vector.spec.observation]
        known = dict(zip(names, self.observation.tolist(), strict=True))
        if (model_state := self.model_state) is not None:
            known |= dict(zip(_POSE, model_state.tolist(), strict=False))
        return np.array([known[signal.name] for signal in self.interface.spec.observation])

    @property
    def model_state(self) -> Array | None:
        """True state of the environment's model, none where it has none."""
        state: Tensor | None = getattr(self._env.unwrapped, "model_state", None)
        return None if state is None else state[0].double().numpy()

    def restart(self, seed: int | None = None) -> None:
        """Start an episode.

        Args:
            seed: Seed of this and the following episodes; without one, the generator goes on.
        """
        self._observation, _ = self._env.reset(seed=seed)
        self.stamp_ns += self._period_ns
        self.is_over = False

    def step(self, command: Array) -> Outcome:
        """Apply a finite command of shape (nu,) for one period, within the limits."""
        action = np.clip(command, self._low, self._high).astype(self._env.action_space.dtype)
        self._observation, reward, terminated, truncated, info = self._env.step(action)
        self.stamp_ns += self._period_ns
        self.is_over = bool(terminated or truncated)
        cost = float(info.get("cost", 0.0))
        self.violations += cost > 0.0
        return Outcome(float(reward), cost, bool(terminated), bool(truncated))

    def close(self) -> None:
        """Free what the environment holds."""
        self._env.close()


def make_env(env_id: str, keywords: str = "") -> gymnasium.Env[Any, Any]:
    """Make an environment from texts, as parameter files hold them.

    Args:
        env_id: Name in Gymnasium's registry; ours and Safety-Gymnasium's are there.
        keywords: Keyword arguments as a YAML mapping, for example `{max_episode_steps: 100}`.

    Raises:
        ConfigError: If there is no such environment or it refuses the keywords.
    """
    assert safectl_envs.catalogue(), "importing the package fills the registry"
    try:
        options = yaml.safe_load(keywords) or {}
        if not isinstance(options, dict):
            raise ConfigError("env_kwargs", f"is {keywords!r}, expected a YAML mapping")
        return gymnasium.make(env_id, disable_env_checker=True, **options)
    except yaml.YAMLError as error:
        raise ConfigError("env_kwargs", f"is no YAML: {' '.join(str(error).split())}") from error
    except (gymnasium.error.Error, TypeError, ImportError) as error:
        raise ConfigError("env_id", f"{env_id!r} cannot be made: {error}") from error


def _base_signals(env: gymnasium.Env[Any, Any], spec: Spec) -> tuple[Signal, ...]:
    """Return pose and measured velocities, where the world drives in a plane by velocities."""
    names = [signal.name for signal in spec.action]
    if not (set(names) <= set(COMMANDS) and isinstance(env.unwrapped, SafeEnv)):
        raise UnknownNameError("signal of a base", ", ".join(names), known=COMMANDS)
    unbounded = float("inf")
    pose = [Signal(n, "rad" if n == "heading" else "m", -unbounded, unbounded) for n in _POSE]
    return (*pose, *(signal for signal in spec.observation if signal.name in COMMANDS))

"""Any Gymnasium environment as a robot, on its own simulated clock."""

import logging
from typing import Any

import gymnasium
import numpy as np
import torch

from safectl.errors import BridgeError, NonFiniteError, ShapeError
from safectl.spec import Spec
from safectl.types import Decision, Reading, Sent

_LOG = logging.getLogger(__name__)


class SimBridge:
    """A bridge to a simulated robot; also the `Clock` of the control loop.

    Time advances only when the loop waits, by whole periods, so a run is repeatable and as fast as
    the machine allows. Episodes that end start anew at the next reading.

    Args:
        env: Environment with a Box action space, actions in the units of `spec`.
        spec: Signals and period.
        stop_action: Action that stops the robot, shape (nu,); applied for one step on stop.
            That step belongs to no policy: its reward and cost are not counted.
        seed: Seed of the first reset.

    Raises:
        ShapeError: If the spaces do not match the specification.
        NonFiniteError: If the stop action is not finite.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        spec: Spec,
        *,
        stop_action: np.ndarray,
        seed: int = 0,
    ) -> None:
        for name, space, size in (
            ("observation", env.observation_space, spec.nx),
            ("action", env.action_space, spec.nu),
        ):
            if space.shape != (size,):
                raise ShapeError(
                    f"{name} of the environment", expected=(size,), got=space.shape or ()
                )
        if stop_action.shape != (spec.nu,):
            raise ShapeError("stop_action", expected=(spec.nu,), got=stop_action.shape)
        if not np.isfinite(stop_action).all():
            count = int((~np.isfinite(stop_action)).sum())
            advice = "give an action that stops the robot"
            raise NonFiniteError("stop_action", count=count, size=spec.nu, advice=advice)
        self._env, self._spec, self._seed = env, spec, seed
        self._low, self._high = np.asarray(spec.action_low), np.asarray(spec.action_high)
        self._stop_action = np.clip(stop_action, self._low, self._high)
        self._observation: np.ndarray | None = None
        self._is_commanded = False  # written to since the last stop
        self._time = 0.0
        self.total_return = 0.0
        self.total_cost = 0.0
        self.episodes = 0

    @property
    def spec(self) -> Spec:
        """Signals of the simulated robot."""
        return self._spec

    def now(self) -> float:
        """Return the simulated time [s]."""
        return self._time

    def wait_until(self, instant: float) -> None:
        """Let the simulated time pass."""
        self._time = max(self._time, instant)

    def read(self) -> Reading:
        """Return the observation of now; resets the environment where an episode has ended."""
        if self._observation is None:
            seed = self._seed if self.episodes == 0 else None
            self._observation, _ = self._env.reset(seed=seed)
        observation = torch.as_tensor(self._observation, dtype=torch.float32)
        return Reading(observation, self._time)

    def write(self, decision: Decision, /) -> Sent:
        """Step the environment with the decided action, clipped to the limits of the robot.

        Raises:
            ShapeError: If the decision is not for one row.
            BridgeError: If the action is not finite.
        """
        if decision.action.shape != (1, self._spec.nu):
            raise ShapeError("action", expected=(1, self._spec.nu), got=decision.action.shape)
        action = decision.action[0].detach().cpu().numpy()
        if not np.isfinite(action).all():
            raise BridgeError(
                "the decided action is not finite; the safeguard is broken, stop here"
            )
        self._is_commanded = True
        sent, reward, cost = self._step(np.clip(action, self._low, self._high))
        self.total_return += reward
        self.total_cost += cost
        return sent

    def stop(self) -> None:
        """Apply the stop action for one step if anything was written since the last stop."""
        if not self._is_commanded or self._observation is None:
            return
        self._is_commanded = False
        try:
            self._step(self._stop_action)
        except Exception:  # noqa: BLE001  stopping never raises, whatever the environment does
            _LOG.warning("the environment raised on the stop action", exc_info=True)

    def __enter__(self) -> "SimBridge":
        self.stop()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.stop()
        finally:
            self._env.close()

    def _step(self, action: np.ndarray) -> tuple[Sent, float, float]:
        """Step the environment; returns what was sent, the reward and the cost."""
        sent = action.astype(self._env.action_space.dtype or np.float32)
        self._observation = None  # an environment that raises is not stepped again by `stop`
        observation, reward, terminated, truncated, info = self._env.step(sent)
        ended = terminated or truncated
        self.episodes += int(ended)
        self._observation = None if ended else observation
        answer = Sent(torch.as_tensor(sent, dtype=torch.float32), self._time)
        return answer, float(reward), float(info.get("cost", 0.0))

"""A robot on ROS topics as a Gymnasium environment."""

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float

from safectl.errors import BridgeError, ShapeError
from safectl_ros.adapters import Array, Interface
from safectl_ros.link import Received, RobotLink
from safectl_ros.qos import SENSOR, STATE
from safectl_ros.simulator import SimulatorClient

_NANOSECONDS = 1e9
_REPEATS = 2  # of a state after a command: the first may have crossed it on the way
_HALF = 0.5  # of a period: a state stamped this much early still counts as the next one


class RosEnv(gymnasium.Env[Float[np.ndarray, " nx"], Float[np.ndarray, " nu"]]):
    """A robot with Gymnasium's interface.

    `step` publishes a command with the stamp of the state it answers. In lock-step it waits for the
    next state, whenever that comes; the simulator steps once per command, and a command is sent
    again where it was lost, which the simulator shows by repeating its state. Free-running it waits
    for the first state that is stamped one period later, so that a step lasts as long in the
    robot's time whatever the load of this machine. It never waits longer than `timeout_s`: then the
    step is truncated, the observation is the last one and `info["stale"]` is true.

    Reward, cost and the end of an episode come from a simulator node; a real robot has none of
    them (reward 0, no end), so wrap the environment in the task. NaN in an action is sent: refusing
    it is the guard's job. What is promised about safety is what the guard on the way promises.

    `info` holds `stale`, `state_age` [s] and `wall_time` [s] on the steady clock, `problem` (why a
    message could not be read), `intervention` (what the guard last said, empty without one) and,
    with a simulator, `cost`.

    Args:
        interface: Messages of the robot.
        simulator: Name of the simulator node, none for a real robot.
        reset: For a real robot: brings it to a start; it gets the seed.
        is_lockstep: Whether the robot waits for commands.
        timeout_s: Longest wait of a step [s].
        start_timeout_s: Longest wait for the robot to appear and to reset [s].
        command_topic: Where commands go; by default to the guard. Without a guard on the way:
            `interface.safe_topic`.
        guard: Name of the guard node whose interventions `info` shows.
        dtype: Of observations and actions.
        domain_id: DDS domain; that of `ROS_DOMAIN_ID` by default.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as in gymnasium.Env

    def __init__(
        self,
        interface: Interface,
        *,
        simulator: str | None = "sim",
        reset: Callable[[int | None], None] | None = None,
        is_lockstep: bool = True,
        timeout_s: float = 1.0,
        start_timeout_s: float = 15.0,
        command_topic: str = "",
        guard: str = "guard",
        dtype: type[np.floating[Any]] = np.float32,
        domain_id: int | None = None,
    ) -> None:
        spec = interface.spec
        self._interface, self._is_lockstep, self._reset_robot = interface, is_lockstep, reset
        self._timeout_s, self._start_timeout_s, self._dtype = timeout_s, start_timeout_s, dtype
        self.observation_space = Box(
            np.array([signal.low for signal in spec.observation], dtype),
            np.array([signal.high for signal in spec.observation], dtype),
            dtype=dtype,
        )
        self.action_space = Box(
            np.array(spec.action_low, dtype), np.array(spec.action_high, dtype), dtype=dtype
        )
        self._period_ns = round(spec.period * _NANOSECONDS)
        self._is_closed = False
        self._link = RobotLink(
            interface,
            name="safectl_env",
            command_topic=command_topic or interface.command_topic,
            state_qos=STATE if is_lockstep else SENSOR,
            guard=guard,
            domain_id=domain_id,
        )
        self._simulator = SimulatorClient(self._link, simulator) if simulator else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, " nx"], dict[str, Any]]:
        """Bring the robot to a start and wait for a state after that.

        Args:
            seed: Seed of the simulator's episodes; without one, its generator goes on.
            options: Not used.

        Raises:
            BridgeError: If the robot does not appear or does not answer in time.
        """
        super().reset(seed=seed)
        if not self._link.await_listener(self._start_timeout_s):
            raise BridgeError(
                f"nobody listens to the commands after {self._start_timeout_s:g} s: start the "
                "guard, or send them to the robot's own topic with `command_topic`"
            )
        after_ns = self._restart(seed)
        received = self._link.wait(lambda new: new.stamp_ns >= after_ns, self._start_timeout_s)
        if received is None:
            raise BridgeError(
                f"no state on {self._interface.state_topic} within {self._start_timeout_s:g} s "
                f"after the reset: {self._link.problem or 'check that the robot runs'}"
            )
        if self._simulator is not None:
            self._simulator.take(received.stamp_ns)
        return self._observation(received), self._info(received, time.monotonic(), is_stale=False)

    def step(
        self, action: Float[np.ndarray, " nu"]
    ) -> tuple[Float[np.ndarray, " nx"], float, bool, bool, dict[str, Any]]:
        """Send one command and wait for the state that follows it.

        Args:
            action: Shape (nu,), in the units of the interface's specification.

        Raises:
            ShapeError: If the action has another shape.
            gymnasium.error.ResetNeeded: Before the first `reset`.
        """
        command = np.asarray(action, dtype=np.float64)
        if command.shape != self.action_space.shape:
            raise ShapeError("action", expected=self.action_space.shape or (), got=command.shape)
        before = self._link.newest
        if before is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        started = time.monotonic()
        self._link.send(command)
        due_ns = before.stamp_ns + (
            1 if self._is_lockstep else self._period_ns - round(_HALF * self._period_ns)
        )
        received = self._follow(command, due_ns)
        info = self._info(received or before, started, is_stale=received is None)
        if received is None:
            return self._observation(before), 0.0, False, True, info
        if self._simulator is None:
            return self._observation(received), 0.0, False, False, info
        account = self._simulator.take(received.stamp_ns)
        info["cost"] = account.cost
        observation = self._observation(received)
        return observation, account.reward, account.terminated, account.truncated, info

    def close(self) -> None:
        """Publish zeros and leave the graph; harmless when repeated."""
        if self._is_closed:
            return
        self._is_closed = True
        low, high = np.array(self._interface.spec.action_low), self._interface.spec.action_high
        self._link.send(np.clip(np.zeros(len(low)), low, np.array(high)))
        self._link.close()

    def _restart(self, seed: int | None) -> int:
        """Bring the robot to a start; returns the earliest stamp of a state after it [ns]."""
        if self._simulator is not None:
            return self._simulator.reset(seed, self._start_timeout_s)
        if self._reset_robot is not None:
            self._reset_robot(seed)
        newest = self._link.newest
        return newest.stamp_ns + 1 if newest else 0

    def _follow(self, command: Array, due_ns: int) -> Received | None:
        """Wait for the state that answers a command; none when that takes too long."""
        limit = time.monotonic() + self._timeout_s
        while True:
            received = self._link.wait(
                lambda new: self._answers(new, due_ns) or self._link.repeats >= _REPEATS,
                limit - time.monotonic(),
            )
            if received is None or self._answers(received, due_ns):
                return received
            self._link.send(command)

    def _answers(self, new: Received, due_ns: int) -> bool:
        has_outcome = self._simulator is None or self._simulator.has_reached(new.stamp_ns)
        return new.stamp_ns >= due_ns and has_outcome

    def _observation(self, received: Received) -> Float[np.ndarray, " nx"]:
        return received.state.astype(self._dtype)

    def _info(self, received: Received, started: float, *, is_stale: bool) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "stale": is_stale,
            "state_age": now - received.arrival,
            "wall_time": now - started,
            "problem": self._link.problem,
            "intervention": self._link.intervention,
        }

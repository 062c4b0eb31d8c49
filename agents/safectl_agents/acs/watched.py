"""Between an on-policy trainer and its environments: corrected actions, costs, and their record."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from safectl_agents.acs.collect import CostOf, Tally, cost_of

Array = NDArray[Any]
Execute = Callable[[Array, Array], Array]
"""From observations (rows, nx) and proposals within their limits (rows, nu) to what is executed."""


class Rollout(NamedTuple):
    """One rollout; `rows` environments side by side.

    Attributes:
        observation: Before each step, shape (steps, rows, nx).
        action: Executed, in their units, shape (steps, rows, nu).
        cost: 0 or 1, shape (steps, rows).
        end: Whether the episode ended with the step, by failure or by time, shape (steps, rows).
        timeout: Whether it ended by time, shape (steps, rows).
        final: Last observation of the episodes that ended by time, in the order of `timeout`'s
            true entries, shape (timeouts, nx).
        last: Observation after the last step, shape (rows, nx).
    """

    observation: Float[Tensor, "steps rows nx"]
    action: Float[Tensor, "steps rows nu"]
    cost: Float[Tensor, "steps rows"]
    end: Bool[Tensor, "steps rows"]
    timeout: Bool[Tensor, "steps rows"]
    final: Float[Tensor, "timeouts nx"]
    last: Float[Tensor, "rows nx"]


class Watched(VecEnvWrapper):
    """Environments during one rollout: the safeguard is a part of them.

    Args:
        venv: The environments.
        observation: Their last observations, shape (rows, nx).
        execute: Corrects proposals.
        tally: Gains the steps, corrections and violations.
        reward_penalty: Taken off the reward of a step with cost.
        distance_penalty: Taken off the reward per length of the correction.
        cost: Reads the cost of a step from its `info`; None for `info["cost"]`.
    """

    def __init__(
        self,
        venv: VecEnv,
        observation: Array,
        execute: Execute,
        tally: Tally,
        *,
        reward_penalty: float = 0.0,
        distance_penalty: float = 0.0,
        cost: CostOf | None = None,
    ) -> None:
        super().__init__(venv)
        self._execute, self._tally, self._cost = execute, tally, cost or cost_of
        self._penalty, self._distance_penalty = reward_penalty, distance_penalty
        self._observation = observation
        self._distance = np.zeros(venv.num_envs)
        self._steps: list[tuple[Array, Array, Array, Array, Array]] = []
        self._action: Array = np.zeros(0)
        self._final: list[Array] = []

    def reset(self) -> Array:
        """Not used within a rollout."""
        raise NotImplementedError("a rollout goes on where the last one ended")

    def step_async(self, actions: Array) -> None:
        """Execute the corrected actions."""
        self._action = self._execute(self._observation, actions)
        self._distance = np.linalg.norm(self._action - actions, axis=1)
        self._tally.steps += len(actions)
        self._tally.corrected += int((self._distance > 0.0).sum())
        self._tally.distance += float(self._distance.sum())
        self.venv.step_async(self._action)

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Record the step; a failure costs 1."""
        observation, reward, done, infos = self.venv.step_wait()
        timeout = np.array([info.get("TimeLimit.truncated", False) for info in infos]) & done
        violated = np.array([self._cost(info) > 0.0 for info in infos])
        self._tally.violations += int(violated.sum())
        cost = (violated | (done & ~timeout)).astype(np.float32)
        self._final += [infos[row]["terminal_observation"] for row in np.flatnonzero(timeout)]
        self._steps.append((self._observation, self._action, cost, done, timeout))
        self._observation = np.asarray(observation)
        if self._penalty > 0.0:
            reward = reward - self._penalty * cost
        if self._distance_penalty > 0.0:
            reward = reward - self._distance_penalty * self._distance
        return self._observation, reward.astype(np.float32), done, infos

    def rollout(self, device: torch.device) -> Rollout:
        """Return what was recorded."""
        observation, action, cost, end, timeout = (
            np.stack(column) for column in zip(*self._steps, strict=True)
        )
        final = np.stack(self._final) if self._final else np.zeros((0, observation.shape[2]))
        floats = (observation, action, cost, final, self._observation)
        seen, executed, costs, finals, last = (
            torch.as_tensor(array, dtype=torch.float32, device=device) for array in floats
        )
        ends, timeouts = (torch.as_tensor(array, device=device) for array in (end, timeout))
        return Rollout(seen, executed, costs, ends, timeouts, finals, last)


def episode_costs(
    cost: Float[Tensor, "steps rows"],
    end: Bool[Tensor, "steps rows"],
    spent: Float[Tensor, " rows"],
) -> tuple[Float[Tensor, " episodes"], Float[Tensor, " rows"]]:
    """Return the costs of the episodes that ended, and the cost so far of those that go on.

    Args:
        cost: Of each step.
        end: Whether the episode ended with it.
        spent: Cost before the first step, of the episodes that began earlier.
    """
    ended: list[Tensor] = []
    for costs, ends in zip(cost, end, strict=True):
        spent = spent + costs
        ended.append(spent[ends])
        spent = torch.where(ends, 0.0, spent)
    return torch.cat(ended), spent

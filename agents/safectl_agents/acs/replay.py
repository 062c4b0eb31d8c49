"""Replay of transitions with their cost, their proposed action and their episode's outcome."""

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

PROPOSAL, COST, COST_BEFORE = "acs_proposal", "acs_cost", "acs_cost_before"
"""Entries of `info` that the trainers add and `CostReplayBuffer.add` reads."""


class CostSamples(NamedTuple):
    """Transitions, actions scaled to [-1, 1]; the first fields are those of the library.

    Attributes:
        observations: Shape (batch, nx).
        actions: As executed, shape (batch, nu).
        next_observations: Shape (batch, nx).
        dones: 1 where the episode failed, not where time ran out, shape (batch, 1).
        rewards: Shape (batch, 1).
        discounts: None, as for all one-step replays.
        proposals: As proposed, shape (batch, nu).
        costs: 0 or 1, shape (batch, 1).
        costs_before: Cost of the step before in the same episode, 0 at its start, (batch, 1).
    """

    observations: Float[Tensor, "batch nx"]
    actions: Float[Tensor, "batch nu"]
    next_observations: Float[Tensor, "batch nx"]
    dones: Float[Tensor, "batch 1"]
    rewards: Float[Tensor, "batch 1"]
    discounts: None
    proposals: Float[Tensor, "batch nu"]
    costs: Float[Tensor, "batch 1"]
    costs_before: Float[Tensor, "batch 1"]


def joined(first: CostSamples, second: CostSamples) -> CostSamples:
    """Return the first rows, then the second ones, as many as the first in all."""
    keep = len(first.rewards) - len(second.rewards)

    def join(head: Tensor, tail: Tensor) -> Tensor:
        return torch.cat([head[:keep], tail])

    return CostSamples(
        join(first.observations, second.observations),
        join(first.actions, second.actions),
        join(first.next_observations, second.next_observations),
        join(first.dones, second.dones),
        join(first.rewards, second.rewards),
        None,
        join(first.proposals, second.proposals),
        join(first.costs, second.costs),
        join(first.costs_before, second.costs_before),
    )


class CostReplayBuffer(ReplayBuffer):
    """The library's replay with costs; rows of violating episodes can be drawn on purpose.

    `sample` draws the same rows from the same global generator as the library's. Which rows belong
    to a violating episode is known when the episode ends.
    """

    saved_rows = ("proposals", "costs", "costs_before", "violating")
    """Arrays that a checkpoint keeps beside the library's."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  the library's
        super().__init__(*arguments, **options)
        shape = (self.buffer_size, self.n_envs)
        self.proposals = np.zeros_like(self.actions)
        self.costs = np.zeros(shape, dtype=np.float32)
        self.costs_before = np.zeros(shape, dtype=np.float32)
        self.violating = np.zeros(shape, dtype=np.bool_)
        self._marked = np.zeros((0, 2), dtype=np.int64)
        self._age = np.zeros(self.n_envs, dtype=np.int64)

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one transition per environment; `infos` hold what the trainer added."""
        row = self.pos
        self.proposals[row] = np.stack([info[PROPOSAL] for info in infos])
        self.costs[row] = [info[COST] for info in infos]
        self.costs_before[row] = [info[COST_BEFORE] for info in infos]
        self.violating[row] = False
        super().add(obs, next_obs, action, reward, done, infos)
        self._age = np.minimum(self._age + 1, self.buffer_size)
        for index in np.flatnonzero(done):
            self._end_episode(row, int(index))

    def sample(  # type: ignore[override]  # a named tuple with the library's fields first
        self, batch_size: int, env: VecNormalize | None = None
    ) -> CostSamples:
        """Draw transitions, the same rows as the library would."""
        return cast(CostSamples, super().sample(batch_size, env))

    def sample_violating(
        self, count: int, generator: np.random.Generator, env: VecNormalize | None = None
    ) -> CostSamples | None:
        """Draw rows of violating episodes, None while there are none."""
        if len(self._marked) == 0:
            return None
        drawn = self._marked[generator.integers(len(self._marked), size=count)]
        drawn = drawn[self.violating[drawn[:, 0], drawn[:, 1]]]  # the others were overwritten
        return self._rows(drawn[:, 0], drawn[:, 1], env) if len(drawn) else None

    def restore_marks(self) -> None:
        """Find the marked rows in the arrays, as after a checkpoint; new episodes begin."""
        self._marked = np.argwhere(self.violating)
        self._age[:] = 0

    def end_episodes(self) -> None:
        """End what is open: the next transition begins an episode."""
        for env in np.flatnonzero(self._age):
            self._end_episode(self.pos - 1, int(env))

    def _end_episode(self, row: int, env: int) -> None:
        rows = np.arange(row - self._age[env] + 1, row + 1) % self.buffer_size
        self._age[env] = 0
        if not self.costs[rows, env].any():
            return
        self.violating[rows, env] = True
        self._marked = np.argwhere(self.violating)  # each once, also where rows were overwritten

    def _get_samples(  # type: ignore[override]  # a named tuple with the library's fields first
        self, batch_inds: NDArray[Any], env: VecNormalize | None = None
    ) -> CostSamples:
        envs = np.random.randint(0, high=self.n_envs, size=(len(batch_inds),))  # noqa: NPY002
        return self._rows(batch_inds, envs, env)

    def _rows(
        self, rows: NDArray[Any], envs: NDArray[Any], env: VecNormalize | None
    ) -> CostSamples:
        at = (rows, envs)
        failed = self.dones[at] * (1.0 - self.timeouts[at])
        observations = cast(NDArray[Any], self._normalize_obs(self.observations[at], env))
        following = cast(NDArray[Any], self._normalize_obs(self.next_observations[at], env))
        rewards = self._normalize_reward(self.rewards[at].reshape(-1, 1), env)
        tensor = self.to_torch
        return CostSamples(
            tensor(observations),
            tensor(self.actions[at]),
            tensor(following),
            tensor(failed.reshape(-1, 1)),
            tensor(rewards),
            None,
            tensor(self.proposals[at]),
            tensor(self.costs[at].reshape(-1, 1)),
            tensor(self.costs_before[at].reshape(-1, 1)),
        )

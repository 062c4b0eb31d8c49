"""A safeguard around a whole vector environment: one `filter` call per vector step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from safectl.types import Decision, Safeguard
from safectl_envs.guard import HasMemory

Infos = list[dict[str, Any]]


@runtime_checkable
class Learner(Protocol):
    """A safeguard that learns from what happens; its state belongs to a checkpoint."""

    def learn(
        self,
        observation: NDArray[np.floating],
        executed: NDArray[np.floating],
        infos: Sequence[Mapping[str, Any]],
        /,
    ) -> None:
        """Take note of one step: observations (batch, nx), actions (batch, nu), one `info` each."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return everything learned, as named tensors."""
        ...

    def load_state(self, state: Mapping[str, Tensor], /) -> None:
        """Go on where `state` was taken."""
        ...


class GuardedVecEnv(VecEnvWrapper):
    """Filter every batch of actions, then step.

    It belongs directly around the environments, below any normaliser, because a safeguard reads
    observations in their units. Per environment `info` gains `action_proposed`, `action_executed`,
    `status`, `margin` and `risk`. What is promised is what the safeguard's `claim` says, no more.

    Args:
        venv: The environments.
        safeguard: Sees all of them. One with a `reset(rows)` is told where episodes begin; a
            `Learner` is told what happened.
        state: Returns what the safeguard sees, shape (batch, nx); None for the observations in
            float32.
    """

    def __init__(
        self, venv: VecEnv, safeguard: Safeguard, state: Callable[[], Tensor] | None = None
    ) -> None:
        super().__init__(venv)
        self._safeguard, self._state = safeguard, state
        self._observation = self._proposal = self._executed = np.zeros((0,))
        self._decision: Decision | None = None

    @property
    def learner(self) -> Learner | None:
        """The safeguard, if it learns."""
        return self._safeguard if isinstance(self._safeguard, Learner) else None

    def reset(self) -> NDArray[np.floating]:
        """Reset every environment.

        Returns:
            Observations, shape (batch, nx), units of the environment.
        """
        self._observation = np.asarray(self.venv.reset())
        self._forget(np.ones(self.num_envs, dtype=np.bool_))
        return self._observation

    def step_async(self, actions: NDArray[np.floating]) -> None:
        """Filter proposals of shape (batch, nu), in units of the action, and start the step."""
        self._proposal = np.array(actions)
        with torch.no_grad():
            seen = torch.as_tensor(self._observation).float() if not self._state else self._state()
            proposal = torch.as_tensor(self._proposal).to(seen)
            self._decision = self._safeguard.filter(seen, proposal)
        executed = self._decision.action.cpu().numpy()
        self._executed = executed.astype(self.action_space.dtype)
        self.venv.step_async(self._executed)

    def step_wait(self) -> tuple[NDArray[np.floating], NDArray[Any], NDArray[Any], Infos]:
        """Finish the step and report what became of every proposal.

        Returns:
            Observations (batch, nx), rewards (batch,), dones (batch,) and one `info` each.
        """
        observation, rewards, dones, infos = self.venv.step_wait()
        if self.learner is not None:
            self.learner.learn(self._observation, self._executed, infos)
        self._observation = np.asarray(observation)
        assert self._decision is not None, "step_async comes first"
        certificate = self._decision.certificate
        rows = zip(
            certificate.status.tolist(),
            certificate.margin.tolist(),
            certificate.risk.tolist(),
            strict=True,
        )
        for index, (status, margin, risk) in enumerate(rows):
            infos[index].update(
                action_proposed=self._proposal[index],
                action_executed=self._executed[index],
                status=status,
                margin=margin,
                risk=risk,
            )
        if dones.any():
            self._forget(dones)
        return self._observation, rewards, dones, infos

    def _forget(self, rows: NDArray[np.bool_]) -> None:
        if isinstance(self._safeguard, HasMemory):
            self._safeguard.reset(torch.as_tensor(rows))

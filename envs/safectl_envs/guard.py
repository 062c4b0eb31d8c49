"""A safeguard around an environment: every action is filtered, and the evidence is in `info`."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards.memory import require_remembered
from safectl.types import Decision, Safeguard, Status

Array = Float[np.ndarray, "..."]
Flags = Bool[np.ndarray, " batch"]
StateOf = Callable[[object], Tensor]
"""Reads from an environment what its safeguard shall see, shape (batch, nx)."""


@runtime_checkable
class HasModelState(Protocol):
    """An environment that knows the true state of its model."""

    @property
    def model_state(self) -> Float[Tensor, "batch nx"]:
        """True states, one row per copy."""
        ...


@runtime_checkable
class HasMemory(Protocol):
    """A safeguard that remembers something about each row, such as the previous action."""

    def reset(self, rows: Bool[Tensor, " batch"], /) -> None:
        """Forget the marked rows: a new episode begins there."""
        ...


def true_state(env: object) -> Float[Tensor, "batch nx"]:
    """Return the true model state of one of our environments, alone or vector, wrapped or not.

    A robot does not have it: what a `Guard` with this argument shows holds for perfect sensing.

    Raises:
        RangeError: If the environment has no `model_state`.
    """
    inner = getattr(env, "unwrapped", env)
    if not isinstance(inner, HasModelState):
        raise RangeError(
            "env", value=inner, expected="an environment with `model_state`, or another `state`"
        )
    return inner.model_state


class Guard(gymnasium.Wrapper[Array, Array, Array, Array]):
    """A safeguard around one environment.

    `step` adds to `info`: `certificate` (a batch of one), `status`, `action_proposed` and
    `action_executed`. A proposal that is not finite leads to the safeguard's fallback.

    Args:
        env: Environment with one-dimensional boxes.
        safeguard: Sees a batch of one. One with a `reset(rows)` is reset with the environment.
        state: What the safeguard sees, for example `true_state`; the observation by default.
        dtype: In which the observation is given to the safeguard; a `state` keeps its own. What a
            safeguard in float64 certifies is then rounded to the box's dtype: the executed action
            may be an ulp of that off.

    Raises:
        ShapeError: If a space is not a one-dimensional box.
        RangeError: If nobody tells a memory inside the safeguard what was decided.
    """

    def __init__(
        self,
        env: gymnasium.Env[Array, Array],
        safeguard: Safeguard,
        *,
        state: StateOf | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(env)
        require_remembered(safeguard)
        _require_box("observation space", env.observation_space)
        self._action_box = _require_box("action space", env.action_space)
        self.safeguard, self.state, self.dtype = safeguard, state, dtype
        self._observation: Array | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode and forget the last one."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        _forget(self.safeguard, np.ones(1, dtype=np.bool_))
        return self._observation, info

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Filter an action, then step with what the safeguard decided.

        Raises:
            ShapeError: If the action has another shape than the environment's.
            gymnasium.error.ResetNeeded: Before the first `reset`.
        """
        if self._observation is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        proposal = _require_shape(action, self._action_box.shape)
        seen = _see(self.env, self._observation[None], self.state, self.dtype)
        decision = _filter(self.safeguard, seen, proposal[None])
        executed = _executed(decision, self._action_box)[0]
        self._observation, reward, terminated, truncated, info = self.env.step(executed)
        evidence = {
            "certificate": decision.certificate,
            "status": Status(int(decision.certificate.status)),
            "action_proposed": proposal,
            "action_executed": executed,
        }
        return self._observation, float(reward), terminated, truncated, info | evidence


class VectorGuard(VectorWrapper):
    """A safeguard around a vector environment: one call of `filter` for all copies.

    `step` adds to `info`: `certificate` (all rows), the arrays `status`, `margin`, `risk` and
    `residual`, `action_proposed` and `action_executed`. Every autoreset mode is understood; where
    an environment ignores an action because it restarts, so is the row's evidence to be ignored.

    Args:
        env: Vector environment with one-dimensional boxes.
        safeguard: Sees all copies. One with a `reset(rows)` is told where episodes begin.
        state: What the safeguard sees, for example `true_state`; the observations by default.
        dtype: As for `Guard`.

    Raises:
        ShapeError, RangeError: As `Guard`.
    """

    def __init__(
        self,
        env: VectorEnv[Array, Array, Array],
        safeguard: Safeguard,
        *,
        state: StateOf | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(env)
        require_remembered(safeguard)
        _require_box("observation space", env.single_observation_space)
        self._action_box = _require_box("action space", env.single_action_space)
        self.safeguard, self.state, self.dtype = safeguard, state, dtype
        self._observation: Array | None = None
        self._done = np.zeros(env.num_envs, dtype=np.bool_)

    def reset(  # type: ignore[override]  # the base is generic without saying so
        self,
        *,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Start the episodes and forget the last ones; `options["reset_mask"]` restarts a part."""
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        rows = everywhere if options is None else options.get("reset_mask", everywhere)
        seeds: Any = seed  # the base class names only int, its subclasses take lists
        self._observation, info = self.env.reset(seed=seeds, options=options)
        _forget(self.safeguard, rows)
        self._done = self._done & ~rows
        return self._observation, info

    def step(  # type: ignore[override]  # the base is generic without saying so
        self, actions: Array
    ) -> tuple[Array, Array, Flags, Flags, dict[str, Any]]:
        """Filter one action per copy, then step with what the safeguard decided.

        Raises:
            ShapeError: If the actions have another shape than the environment's.
            gymnasium.error.ResetNeeded: Before the first `reset`.
        """
        if self._observation is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        proposal = _require_shape(actions, (self.num_envs, *self._action_box.shape))
        seen = _see(self.env, self._observation, self.state, self.dtype)
        decision = _filter(self.safeguard, seen, proposal)
        executed = _executed(decision, self._action_box)
        self._observation, reward, terminated, truncated, info = self.env.step(executed)
        done = terminated | truncated
        mode = self.env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.DISABLED:
            _forget(self.safeguard, done if mode is AutoresetMode.SAME_STEP else self._done)
        self._done = done
        evidence = _rows(decision) | {"action_proposed": proposal, "action_executed": executed}
        return self._observation, reward, terminated, truncated, info | evidence


def _require_box(name: str, space: object) -> Box:
    if not isinstance(space, Box) or len(space.shape) != 1:
        shape = getattr(space, "shape", None) or ()
        raise ShapeError(name, expected=("n",), got=shape)
    return space


def _require_shape(action: Array, expected: tuple[int, ...]) -> Array:
    proposal = np.array(action)
    if proposal.shape != expected:
        raise ShapeError("action", expected=expected, got=proposal.shape)
    return proposal


def _see(env: object, observation: Array, state: StateOf | None, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(observation, dtype=dtype) if state is None else state(env)


def _filter(safeguard: Safeguard, seen: Tensor, proposal: Array) -> Decision:
    if seen.ndim != 2 or len(seen) != len(proposal):
        raise ShapeError("state", expected=(len(proposal), "nx"), got=tuple(seen.shape))
    return safeguard.filter(seen, torch.as_tensor(proposal).to(seen))


def _executed(decision: Decision, box: Box) -> Array:
    executed: Array = decision.action.cpu().numpy().astype(box.dtype)
    return executed


def _rows(decision: Decision) -> dict[str, Any]:
    """Return the certificate and its parts as arrays, with the masks of Gymnasium's convention."""
    certificate = decision.certificate
    rows: dict[str, Any] = {"certificate": certificate}
    for name in ("status", "margin", "risk", "residual"):
        values = getattr(certificate, name).cpu().numpy()
        rows |= {name: values, f"_{name}": np.ones(len(values), dtype=np.bool_)}
    return rows


def _forget(safeguard: Safeguard, rows: Flags) -> None:
    if isinstance(safeguard, HasMemory):
        safeguard.reset(torch.as_tensor(rows))

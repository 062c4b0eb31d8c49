"""Between the policy and the environment: proposals, corrections, costs, and their counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from safectl.errors import ConfigError, RangeError
from safectl.seed import derive, numpy_generator
from safectl_agents.acs.lower import Actors, Corrected, Lower, LowerSettings, Proposed, Sizes
from safectl_agents.acs.projection import ProjectionSettings
from safectl_agents.acs.replay import (
    COST,
    COST_BEFORE,
    PROPOSAL,
    CostReplayBuffer,
    CostSamples,
    joined,
)

Array = NDArray[Any]
Infos = list[dict[str, Any]]
CostOf = Callable[[Mapping[str, Any]], float]
"""Reads the cost of a step from its `info`."""


@dataclass(frozen=True, slots=True)
class ConstraintSettings:
    """How a trainer treats cost; the defaults are ACS's.

    Raises:
        RangeError: If a number lies outside its range.
    """

    lower: LowerSettings = field(default_factory=ProjectionSettings)
    """The layer that corrects actions."""
    warmup_ratio: float = 0.2
    """Share of the steps of `learn` before the layer corrects anything, in [0, 1]."""
    guard_from: int | None = None
    """Step from which the layer corrects, in place of the share; 0 with a critic learned before."""
    learns: bool = True
    """Whether the layer learns; one that was learned before may stay what it was."""
    store: Literal["executed", "proposal"] = "executed"
    """Which action the reward critics learn from; the cost critic always sees the executed one."""
    reward_penalty: float = 0.0
    """b in r - b c, >= 0."""
    actor_learning_rate: float | None = None
    """Step size of the policy's optimiser, > 0; None for that of the critics."""
    violating_share: float = 0.2
    """Share of the lower layer's batch drawn from violating episodes, in [0, 1)."""
    failure_costs: bool = True
    """Whether the step on which an episode fails costs 1."""

    def __post_init__(self) -> None:
        for name, high in (("warmup_ratio", 1.0), ("violating_share", 0.99)):
            if not 0.0 <= getattr(self, name) <= high:
                expected = f"a number in [0, {high:g}]"
                raise RangeError(name, value=getattr(self, name), expected=expected)
        if not self.reward_penalty >= 0.0:
            raise RangeError("reward_penalty", value=self.reward_penalty, expected="a number >= 0")
        rate = self.actor_learning_rate
        if rate is not None and not rate > 0.0:
            raise RangeError("actor_learning_rate", value=rate, expected="a number > 0, or None")
        if self.guard_from is not None and self.guard_from < 0:
            raise RangeError("guard_from", value=self.guard_from, expected="a step >= 0, or None")


@dataclass(slots=True)
class Tally:
    """Sums over the steps since the last `reset`; only `violations` counts from step zero."""

    violations: int = 0
    steps: int = 0
    corrected: int = 0
    iterations: float = 0.0
    residual: float = 0.0
    distance: float = 0.0

    def reset(self) -> None:
        """Start the sums anew, all but the violations."""
        self.steps, self.corrected = 0, 0
        self.iterations = self.residual = self.distance = 0.0


class Collector:
    """What both trainers do between the policy and the environments.

    Args:
        settings: How cost is treated.
        cost: Reads a step's cost; None for `info["cost"]`.
        sizes: Of the lower layer.
        rows: Environments.
        seed: Of everything random that plain training does not draw.
    """

    def __init__(
        self,
        settings: ConstraintSettings,
        cost: CostOf | None,
        sizes: Sizes,
        *,
        rows: int,
        seed: int,
    ) -> None:
        self.settings, self._cost = settings, cost or cost_of
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "lower layer"))
            self.lower: Lower = settings.lower.build(sizes)
        self.tally = Tally()
        self._device = sizes.device
        self.begin(rows, seed)

    def begin(self, rows: int, seed: int) -> None:
        """Forget the steps before, and let draws follow from the seed."""
        self.forget(rows)
        self._generator = numpy_generator(seed, "violating rows")

    def forget(self, rows: int) -> None:
        """Forget the steps before: episodes begin."""
        self._before = np.zeros((rows, 1), dtype=np.float32)
        self._proposal = np.zeros((0,))

    def guards(self, step: int, total: int) -> bool:
        """Return whether the lower layer corrects at a step of a training of `total` steps."""
        start = self.settings.guard_from
        return step >= (self.settings.warmup_ratio * total if start is None else start)

    def execute(
        self, observation: Array, proposal: Array, actors: Actors, *, guarded: bool
    ) -> Array:
        """Return the scaled action to execute, shape (batch, nu), and remember the proposal."""
        self._proposal = proposal
        self.tally.steps += len(proposal)
        if not guarded:
            return proposal
        found = self.correct(observation, proposal, actors, self._before)
        action = found.action.cpu().numpy()
        changed = np.linalg.norm(action - proposal, axis=1)
        self.tally.corrected += int((changed > 0.0).sum())
        self.tally.iterations += float(found.iterations.sum())
        self.tally.residual += float(found.residual.sum())
        self.tally.distance += float(changed.sum())
        return action

    def correct(
        self, observation: Array, proposal: Array, actors: Actors, before: Array
    ) -> Corrected:
        """Ask the lower layer about scaled proposals, shape (batch, nu)."""
        tensors = (
            torch.as_tensor(array, dtype=torch.float32, device=self._device)
            for array in (observation, proposal, before)
        )
        return self.lower.correct(Proposed(*tensors), actors)

    def annotate(self, infos: Infos, dones: Array) -> None:
        """Add cost and proposal of a step to its `infos`, for the replay.

        Raises:
            ConfigError: If a step has no cost.
        """
        for index, info in enumerate(infos):
            violated = self._cost(info) > 0.0
            self.tally.violations += violated
            failed = bool(dones[index]) and not info.get("TimeLimit.truncated", False)
            cost = float(violated or (failed and self.settings.failure_costs))
            info.update(
                {PROPOSAL: self._proposal[index], COST: cost, COST_BEFORE: self._before[index, 0]}
            )
            self._before[index] = 0.0 if dones[index] else cost

    def learn(
        self,
        buffer: CostReplayBuffer,
        batch: CostSamples,
        next_action: Tensor,
        actors: Actors,
        *,
        normalizer: VecNormalize | None = None,
    ) -> dict[str, float]:
        """Update the lower layer, with its share of rows from violating episodes.

        Args:
            buffer: Holds them.
            batch: What the reward critics learned from.
            next_action: The policy's at the next observations, shape (batch, nu).
            actors: The task policy.
            normalizer: The one that normalised the batch, if any.
        """
        if not self.settings.learns:
            return {}
        count = round(self.settings.violating_share * len(batch.rewards))
        extra = buffer.sample_violating(count, self._generator, normalizer) if count else None
        if extra is None:
            return self.lower.update(batch, next_action, actors)
        with torch.no_grad():
            following = actors.following(extra.next_observations)
        keep = len(batch.rewards) - len(extra.rewards)
        actions = torch.cat([next_action[:keep], following])
        return self.lower.update(joined(batch, extra), actions, actors)

    def track(self) -> None:
        """Move the slow copies of a layer that learns."""
        if self.settings.learns:
            self.lower.track()


def cost_of(info: Mapping[str, Any]) -> float:
    """Return `info["cost"]`.

    Raises:
        ConfigError: If there is none.
    """
    if "cost" not in info:
        problem = "holds no 'cost'; give the trainer a function: cost=lambda info: ..."
        raise ConfigError("info of the environment", problem)
    return float(info["cost"])


def propose(
    model: OffPolicyAlgorithm, learning_starts: int, noise: ActionNoise | None, rows: int
) -> Array:
    """Return what the library would execute, scaled to [-1, 1], by the same draws."""
    if model.num_timesteps < learning_starts:
        action = np.array([model.action_space.sample() for _ in range(rows)])
    else:
        assert model._last_obs is not None, "learn() has reset the environments"
        action, _ = model.policy.predict(model._last_obs, deterministic=False)
    scaled: Array = model.policy.scale_action(action)
    return scaled if noise is None else np.clip(scaled + noise(), -1, 1)


def collector_of(
    model: OffPolicyAlgorithm, settings: ConstraintSettings, cost: CostOf | None
) -> Collector:
    """Make a trainer's collector once the library has built the policy."""
    (nx,), (nu,) = _shape(model.observation_space), _shape(model.action_space)
    sizes = Sizes(nx, nu, model.device)
    return Collector(settings, cost, sizes, rows=model.n_envs, seed=model.seed or 0)


def sample_action(
    model: OffPolicyAlgorithm,
    collector: Collector,
    actors: Actors,
    noise: ActionNoise | None,
    *,
    learning_starts: int,
) -> tuple[Array, Array]:
    """Propose and correct; return the action in its units and scaled, shape (batch, nu)."""
    proposal = propose(model, learning_starts, noise, model.n_envs)
    assert isinstance(model._last_obs, np.ndarray)
    guarded = collector.guards(model.num_timesteps, model._total_timesteps)
    executed = collector.execute(model._last_obs, proposal, actors, guarded=guarded)
    return model.policy.unscale_action(executed), executed


def predict(
    model: OffPolicyAlgorithm,
    collector: Collector,
    actors: Actors,
    observation: Array,
    state: tuple[Array, ...] | None,
    *,
    deterministic: bool,
) -> Array:
    """Return corrected actions in their units, for one observation or a batch.

    Args:
        model: The trainer.
        collector: Its lower layer.
        actors: Its policy.
        observation: Shape (nx,) or (batch, nx).
        state: One array, the costs of the steps before, shape (batch,); None where there were none.
            Only a layer that predicts the change of the cost reads it.
        deterministic: As in the library.
    """
    action, _ = model.policy.predict(observation, deterministic=deterministic)
    scaled = model.policy.scale_action(action).reshape(-1, *_shape(model.action_space))
    seen = np.asarray(observation).reshape(-1, *_shape(model.observation_space))
    before = np.zeros(len(seen)) if state is None else state[0]
    found = collector.correct(seen, scaled, actors, before.reshape(-1, 1))
    corrected: Array = model.policy.unscale_action(found.action.cpu().numpy())
    return corrected.reshape(action.shape).astype(action.dtype)


def set_gradients(loss: Tensor, module: torch.nn.Module) -> None:
    """Differentiate by one module's weights; unlike `backward` nothing else is computed."""
    weights = list(module.parameters())
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient


def _shape(space: spaces.Space[Any]) -> tuple[int, ...]:
    assert space.shape is not None, "spaces are boxes, as the library has checked"
    return space.shape

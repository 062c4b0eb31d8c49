"""Is an environment fit for safeguarding? Gymnasium's checks, units, cost and determinism."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import env_checker
from jaxtyping import Float

from safectl.errors import SafectlError
from safectl.spec import Signal, Spec

Array = Float[np.ndarray, "..."]


class EnvironmentProblem(SafectlError):
    """An environment breaks a rule; the message names the index."""


class _Step(NamedTuple):
    observation: Array
    reward: float
    cost: float


def check_env(
    env: gymnasium.Env[Array, Array], *, units: bool = True, steps: int = 100, seed: int = 0
) -> None:
    """Check an environment, wrapped or not.

    In order: Gymnasium's own checker on the unwrapped environment; `signals` with a unit for every
    entry and the bounds of the spaces; every observation finite and within its bounds; a finite
    `info["cost"]` that is not negative; the same episode twice for one seed.

    Args:
        env: The environment.
        units: Whether `signals` is required; Safety-Gymnasium has none.
        steps: Random steps in each of the two runs.
        seed: Of the environment and of the actions.

    Raises:
        EnvironmentProblem: With the index, the signal and the value of the first problem.
    """
    signals = _find_signals(env) if units else None
    try:
        env_checker.check_env(env.unwrapped, skip_render_check=env.render_mode is None)
    except (AssertionError, TypeError, AttributeError, gymnasium.error.Error) as error:
        raise EnvironmentProblem(f"Gymnasium's checker: {error}") from error
    first = _roll(env, signals, steps, seed)
    second = _roll(env, signals, steps, seed)
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        _require_same(one, other, index, signals)


def _find_signals(env: gymnasium.Env[Array, Array]) -> Spec:
    signals = getattr(env.unwrapped, "signals", None)
    if not isinstance(signals, Spec):
        raise EnvironmentProblem("no `signals`: give the environment a safectl Spec of that name")
    _match("observation", signals.observation, env.observation_space)
    _match("action", signals.action, env.action_space)
    return signals


def _match(kind: str, signals: tuple[Signal, ...], space: object) -> None:
    if not isinstance(space, Box) or space.shape != (len(signals),):
        raise EnvironmentProblem(f"{kind}: {len(signals)} signals, but the space is {space}")
    bounds = zip(signals, space.low, space.high, strict=True)
    for index, (signal, low, high) in enumerate(bounds):
        if not signal.unit:
            advice = "write '1' for a number without one"
            raise EnvironmentProblem(f"{kind}[{index}] ({signal.name}) has no unit; {advice}")
        declared = np.array([signal.low, signal.high], dtype=space.low.dtype)
        if declared.tolist() != [low, high]:
            raise EnvironmentProblem(
                f"{kind}[{index}] ({signal.name}): bounds [{signal.low}, {signal.high}] "
                f"{signal.unit}, but the space has [{low}, {high}]"
            )


def _roll(
    env: gymnasium.Env[Array, Array], signals: Spec | None, steps: int, seed: int
) -> list[_Step]:
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    _require_within(observation, env.observation_space, signals, "reset")
    records = [_Step(observation, 0.0, 0.0)]
    for index in range(steps):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        _require_within(observation, env.observation_space, signals, f"step {index}")
        records.append(_Step(observation, float(reward), _cost(info, index)))
        if terminated or truncated:
            observation, _ = env.reset()
    return records


def _cost(info: dict[str, Any], step: int) -> float:
    cost = info.get("cost")
    if not isinstance(cost, float) or not 0.0 <= cost < np.inf:
        raise EnvironmentProblem(
            f"info['cost'] at step {step} is {cost!r}, expected a finite float >= 0"
        )
    return cost


def _require_within(observation: Array, space: object, signals: Spec | None, when: str) -> None:
    if not isinstance(space, Box):
        raise EnvironmentProblem(f"the observation space is {space}, expected a Box")
    outside = ~((observation >= space.low) & (observation <= space.high))
    if outside.any():
        index = int(np.flatnonzero(outside)[0])
        raise EnvironmentProblem(
            f"{_label(index, signals)} is {observation.flat[index]} at {when}, outside "
            f"[{space.low.flat[index]}, {space.high.flat[index]}]"
        )


def _require_same(one: _Step, other: _Step, index: int, signals: Spec | None) -> None:
    different = np.flatnonzero(one.observation != other.observation)
    if len(different):
        entry = int(different[0])
        values = f"{one.observation.flat[entry]} and {other.observation.flat[entry]}"
        raise EnvironmentProblem(
            f"{_label(entry, signals)} is {values} after {index} steps from one seed"
        )
    for name, value, again in (
        ("reward", one.reward, other.reward),
        ("cost", one.cost, other.cost),
    ):
        if value != again:
            raise EnvironmentProblem(
                f"the {name} is {value} and {again} after {index} steps from one seed"
            )


def _label(index: int, signals: Spec | None) -> str:
    if signals is None:
        return f"observation[{index}]"
    signal = signals.observation[index]
    return f"observation[{index}] ({signal.name} [{signal.unit}])"

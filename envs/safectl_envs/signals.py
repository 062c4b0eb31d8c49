"""The specification of any environment: names and units where they can be known."""

from typing import Any

import gymnasium
from gymnasium.spaces import Box

from safectl.errors import ShapeError
from safectl.spec import Signal, Spec
from safectl_envs.env import SafeEnv
from safectl_envs.safety_gymnasium import SafetyGymnasiumEnv

UNKNOWN = "?"
"""Unit of a signal whose environment does not say."""


def spec_of(env: gymnasium.Env[Any, Any]) -> Spec:
    """Describe observation, action and period of an environment.

    Our worlds say it themselves. For the velocity tasks of Safety-Gymnasium the names are those of
    the joints and motors of the MuJoCo model, positions before velocities. Elsewhere signals are
    numbered and have the unit `UNKNOWN`.

    Raises:
        ShapeError: If a space is not a one-dimensional box.
        RangeError: If an action has no finite bounds.
    """
    inner = env.unwrapped
    if isinstance(inner, SafeEnv):
        return inner.signals
    observation, action = (
        _box("observation", env.observation_space),
        _box("action", env.action_space),
    )
    names = [(f"observation_{index}", UNKNOWN) for index in range(observation.shape[0])]
    motors = [(f"action_{index}", UNKNOWN) for index in range(action.shape[0])]
    if isinstance(inner, SafetyGymnasiumEnv) and inner.speed_limit is not None:
        model = inner.inner.unwrapped.model
        motors = [_motor(model, index) for index in range(model.nu)]
        names = _joints(model, observation.shape[0]) or names
    return Spec(_signals(names, observation), _signals(motors, action), _period(inner))


def spec_of_boxes(observation: object, action: object, *, period: float = 1.0) -> Spec:
    """Describe two spaces: numbered signals of the unit `UNKNOWN`.

    Raises:
        ShapeError: If a space is not a one-dimensional box.
        RangeError: If an action has no finite bounds.
    """
    seen, moved = _box("observation", observation), _box("action", action)
    return Spec(_numbered("observation", seen), _numbered("action", moved), period)


def _numbered(name: str, box: Box) -> tuple[Signal, ...]:
    return _signals([(f"{name}_{index}", UNKNOWN) for index in range(box.shape[0])], box)


def _joints(model: Any, size: int) -> list[tuple[str, str]]:  # noqa: ANN401  MuJoCo has no types
    """Name the last positions and all velocities of the joints, where that is the observation."""
    positions, velocities = [], []
    for index in range(model.njnt):
        name = model.joint(index).name
        kind = int(model.jnt_type[index])
        if kind == 0:  # a free joint: position and quaternion, linear and angular velocity
            positions += [(f"{name}_{axis}", "m") for axis in "xyz"]
            positions += [(f"{name}_q{axis}", "1") for axis in "wxyz"]
            velocities += [(f"{name}_v{axis}", "m/s") for axis in "xyz"]
            velocities += [(f"{name}_w{axis}", "rad/s") for axis in "xyz"]
        else:
            unit = "m" if kind == 2 else "rad"
            positions.append((name, unit))
            velocities.append((f"{name}_velocity", f"{unit}/s"))
    hidden = len(positions) + len(velocities) - size
    return positions[hidden:] + velocities if 0 <= hidden < len(positions) else []


def _motor(model: Any, index: int) -> tuple[str, str]:  # noqa: ANN401  MuJoCo has no types
    name = model.actuator(index).name or model.joint(int(model.actuator_trnid[index][0])).name
    return f"{name}_torque", f"{float(model.actuator_gear[index][0]):g} N m"


def _signals(names: list[tuple[str, str]], box: Box) -> tuple[Signal, ...]:
    bounds = zip(box.low.tolist(), box.high.tolist(), strict=True)
    return tuple(
        Signal(name, unit, low, high)
        for (name, unit), (low, high) in zip(names, bounds, strict=True)
    )


def _period(inner: object) -> float:
    for name in ("period", "dt"):
        value = getattr(inner, name, None)
        if isinstance(value, float):
            return value
    return 1.0 / float(getattr(inner, "metadata", {}).get("render_fps", 1.0))


def _box(name: str, space: object) -> Box:
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise ShapeError(f"{name} space", expected=("n",), got=getattr(space, "shape", None) or ())
    return space

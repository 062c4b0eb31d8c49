"""Models of a robot as operations: the next state as drift + gain u, computed once per step."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from safectl.dynamics import CartPole, LinearDynamics, Unicycle
from safectl.errors import UnsupportedLayer
from safectl.export.ops import Op
from safectl.export.trace import Tracer
from safectl.types import Dynamics


@dataclass(frozen=True, slots=True)
class Motion:
    """x[k+1] = drift + gain u for the entries that move; the others stay as they are.

    Attributes:
        state: Value of the present state, (nx,).
        drift: Value, one entry per moving entry of the state.
        gain: Value, one row of nu entries per moving entry of the state.
        moving: Indices of the entries of the state that the model changes.
        nu: Number of actions.
    """

    state: str
    drift: str
    gain: str
    moving: tuple[int, ...]
    nu: int


@runtime_checkable
class HasMotion(Protocol):
    """A model outside this package that knows its operations."""

    def motion(self, tracer: Tracer, state: str) -> Motion:
        """Append the operations of one step from a state."""
        ...


def motion_of(tracer: Tracer, dynamics: Dynamics, state: str) -> Motion:
    """Append the operations of one step of a model.

    Raises:
        UnsupportedLayer: If the model has no operations.
    """
    match dynamics:
        case LinearDynamics():
            return _linear(tracer, dynamics, state)
        case Unicycle():
            return _unicycle(tracer, dynamics, state)
        case CartPole():
            return _cart_pole(tracer, dynamics, state)
        case HasMotion():
            return dynamics.motion(tracer, state)
    raise UnsupportedLayer(
        f"the model {type(dynamics).__name__}",
        supported=("LinearDynamics", "Unicycle", "CartPole"),
        advice="Give it a method motion(tracer, state), as HasMotion says.",
    )


def constant(tracer: Tracer, like: str, array: object, *, name: str) -> str:
    """Append a value that is the same in every step."""
    flat = np.asarray(array, np.float64).ravel()
    return tracer.op(Op("constant", (like,), (name,), (tracer.constant(f"{name}_data", flat),)))


def _linear(tracer: Tracer, model: LinearDynamics, state: str) -> Motion:
    drift = tracer.dense(state, model.Ad.numpy(), None, name="model_drift")
    gain = constant(tracer, state, model.Bd.numpy(), name="model_gain")
    return Motion(state, drift, gain, tuple(range(model.nx)), model.nu)


def _unicycle(tracer: Tracer, model: Unicycle, state: str) -> Motion:
    heading = tracer.slice(state, 2, 3, name="model_heading")
    compass = tracer.concat(
        [_angle(tracer, "cosine", heading), _angle(tracer, "sine", heading)], name="model_compass"
    )
    weight = np.zeros((model.nx * model.nu, 2))
    bias = np.zeros(model.nx * model.nu)
    weight[0, 0] = weight[2, 1] = bias[5] = model.period
    gain = tracer.dense(compass, weight, bias, name="model_gain")
    return Motion(state, state, gain, tuple(range(model.nx)), model.nu)


def _angle(tracer: Tracer, kind: str, value: str) -> str:
    return tracer.op(Op(kind, (value,), (f"model_{kind}",)))


def _cart_pole(tracer: Tracer, model: CartPole, state: str) -> Motion:
    """The equations of `dynamics/cartpole.py`, with the constants multiplied out."""
    p = model.parameters
    total, moment = p.cart_mass + p.pole_mass, p.pole_mass * p.half_length

    def times(left: str, right: str, name: str) -> str:
        return tracer.multiply(left, right, name=f"model_{name}")

    def scaled(value: str, gain: float, shift: float, name: str) -> str:
        return tracer.affine(value, [gain], [shift], name=f"model_{name}")

    velocity, angle, rate = (tracer.slice(state, i, i + 1, name=f"model_x{i}") for i in (1, 2, 3))
    sine, cosine = _angle(tracer, "sine", angle), _angle(tracer, "cosine", angle)
    square = times(cosine, cosine, "cosine_square")
    inertia = scaled(
        square, -p.half_length * p.pole_mass / total, p.half_length * 4.0 / 3.0, "inertia"
    )
    swing = times(times(rate, rate, "rate_square"), sine, "swing_size")
    swing = scaled(swing, moment / total, 0.0, "swing")
    torque = tracer.add(
        scaled(sine, p.gravity, 0.0, "weight"),
        scaled(times(cosine, swing, "swing_along"), -1.0, 0.0, "swing_back"),
        name="model_torque",
    )
    turning = tracer.op(Op("divide", (torque, inertia), ("model_turning",)))
    per_force = scaled(cosine, -1.0 / total, 0.0, "push")
    turning_gain = tracer.op(Op("divide", (per_force, inertia), ("model_turning_gain",)))
    reaction = scaled(times(turning, cosine, "turning_along"), -moment / total, 0.0, "reaction")
    rolling = tracer.add(swing, reaction, name="model_rolling")
    rolling_gain = scaled(
        times(turning_gain, cosine, "gain_along"), -moment / total, 1.0 / total, "rolling_gain"
    )
    rates = tracer.concat([velocity, rolling, rate, turning], name="model_rates")
    change = tracer.affine(rates, [model.period] * 4, [0.0] * 4, name="model_change")
    gains = tracer.concat([rolling_gain, turning_gain], name="model_gains")
    weight = np.zeros((4, 2))
    weight[1, 0] = weight[3, 1] = model.period
    gain = tracer.dense(gains, weight, None, name="model_gain")
    drift = tracer.add(state, change, name="model_drift")
    return Motion(state, drift, gain, tuple(range(model.nx)), model.nu)

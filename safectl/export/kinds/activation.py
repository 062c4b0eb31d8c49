"""Activations: one float32 function each, in NumPy here and in `runtime/sf_activation.c`."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from safectl.errors import RangeError, UnknownNameError
from safectl.export.arithmetic import clip, erfc, exp, log1p, sigmoid, tanh, total
from safectl.export.kinds.kind import Call, Kind, call, columns, expect
from safectl.export.literals import float_literal
from safectl.export.ops import AnyArray, Array, Op, Shape, Value

SELU_SCALE, SELU_ALPHA = np.float32(1.05070099), np.float32(1.67326324)
_ZERO, _ONE, _SIX = np.float32(0.0), np.float32(1.0), np.float32(6.0)
_HALF, _TENTH_OF_TWO = np.float32(0.5), np.float32(0.2)
_SIXTH, _THREE = np.float32(0.166666667), np.float32(3.0)
_ROOT_HALF = np.float32(0.707106781)
_GELU_GAIN, _GELU_CUBIC = np.float32(-1.59576912), np.float32(0.044715)


def _relu(x: Array, alpha: np.float32) -> Array:
    del alpha
    return np.where(x < 0, _ZERO, x)


def _relu6(x: Array, alpha: np.float32) -> Array:
    del alpha
    return clip(x, _ZERO, _SIX)


def _leaky_relu(x: Array, alpha: np.float32) -> Array:
    return np.where(x < 0, alpha * x, x)


def _elu(x: Array, alpha: np.float32) -> Array:
    return np.where(x < 0, alpha * (exp(x) - _ONE), x)


def _selu(x: Array, alpha: np.float32) -> Array:
    del alpha
    return SELU_SCALE * _elu(x, SELU_ALPHA)


def _softplus(x: Array, alpha: np.float32) -> Array:
    del alpha
    return np.where(x < 0, log1p(exp(x)), x + log1p(exp(-x)))


def _softsign(x: Array, alpha: np.float32) -> Array:
    del alpha
    return np.divide(x, _ONE + np.where(x < 0, -x, x), dtype=np.float32)


def _tanh(x: Array, alpha: np.float32) -> Array:
    del alpha
    return tanh(x)


def _sigmoid(x: Array, alpha: np.float32) -> Array:
    del alpha
    return sigmoid(x)


def _hard_sigmoid(x: Array, alpha: np.float32) -> Array:
    """Keras 2."""
    del alpha
    return clip(_TENTH_OF_TWO * x + _HALF, _ZERO, _ONE)


def _hard_sigmoid_v3(x: Array, alpha: np.float32) -> Array:
    """Keras 3 and torch."""
    del alpha
    return clip((x + _THREE) * _SIXTH, _ZERO, _ONE)


def _exponential(x: Array, alpha: np.float32) -> Array:
    del alpha
    return exp(x)


def _swish(x: Array, alpha: np.float32) -> Array:
    del alpha
    result: Array = x / (_ONE + exp(-x))
    return result


def _gelu(x: Array, alpha: np.float32) -> Array:
    """Return x Phi(x); the small tail is computed directly, so that it keeps its digits."""
    del alpha
    size = np.where(x < 0, -x, x)
    tail = (_HALF * size) * erfc(_ROOT_HALF * size)
    return np.where(x < 0, -tail, x - tail)


def _gelu_tanh(x: Array, alpha: np.float32) -> Array:
    """Return 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    del alpha
    result: Array = x / (_ONE + exp(_GELU_GAIN * (x + ((_GELU_CUBIC * x) * x) * x)))
    return result


FUNCTIONS: Mapping[str, Callable[[Array, np.float32], Array]] = {
    "relu": _relu,
    "relu6": _relu6,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "softplus": _softplus,
    "softsign": _softsign,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "hard_sigmoid_v3": _hard_sigmoid_v3,
    "exponential": _exponential,
    "swish": _swish,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}
"""Element by element; `softmax` sees a row at once and `none` changes nothing."""

ACTIVATIONS = ("none", *FUNCTIONS, "softmax")
SLOPED = ("leaky_relu", "elu")
"""Activations with a parameter `alpha`."""


def check_activation(kind: str, *, allowed: Sequence[str] = ACTIVATIONS) -> None:
    """Refuse an activation that is not known.

    Raises:
        UnknownNameError: With the nearest known name.
    """
    if kind not in allowed:
        raise UnknownNameError("activation", kind, known=allowed)


def activate(op: Op, x: Array, kind: str | None = None) -> Array:
    """Apply the activation of an operation, or another one, to an array (batch, size)."""
    chosen = op.activation if kind is None else kind
    if chosen == "none":
        return x
    if chosen == "softmax":
        return _softmax(x.reshape(len(x), op.rows, -1)).reshape(x.shape)
    return FUNCTIONS[chosen](x, np.float32(op.alpha))


def activation_lines(
    op: Op, place: str, source: str, size: int, kind: str | None = None
) -> list[str]:
    """Write the activation of an operation, or another one, from one address to another."""
    chosen = op.activation if kind is None else kind
    match chosen:
        case "none":
            return []
        case "softmax":
            return [call("sf_softmax", place, source, f"{op.rows}, {size // op.rows}")]
        case "leaky_relu" | "elu":
            alpha = float_literal(np.float32(op.alpha))
            return [call(f"sf_{chosen}", place, source, alpha, size)]
        case _:
            return [call(f"sf_{chosen}", place, source, size)]


def _softmax(x: Array) -> Array:
    largest = x[..., 0]
    for k in range(1, x.shape[-1]):
        largest = np.where(x[..., k] > largest, x[..., k], largest)
    powers = exp(x - largest[..., None])
    result: Array = powers / total(powers)[..., None]
    return result


def _rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    expect(op, shapes, [])
    columns(op, values[0])
    if op.activation == "none":
        raise RangeError("activation", value="none", expected="one that changes something")
    return (Value(values[0].size),)


def _meaning(op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]) -> tuple[Array]:
    del constants
    return (activate(op, inputs[0]),)


def _lines(call: Call) -> list[str]:
    return activation_lines(call.op, call.outputs[0], call.inputs[0], call.sizes[0])


KINDS: Mapping[str, Kind] = {
    "activation": Kind((1,), _rule, _meaning, _lines, ("sf_activation",)),
}

"""Float32 functions that NumPy and C compute with the same operations in the same order.

Their twins are in `export/runtime/sf_math.h`. "Equal" therefore means equal bits, on any machine
that rounds as IEEE 754 asks and does not fuse a multiplication with an addition.
"""

import numpy as np

from safectl.export.ops import Array

TANH_LIMIT = np.float32(7.9)
TANH_P = tuple(np.array([0.999999642, 0.129279107, 0.00295382366, 1.14665027e-05], np.float32))
TANH_Q = tuple(np.array([0.462610841, 0.0238260068, 0.000239111949, 2.47282742e-07], np.float32))
"""tanh(x) = x P(x^2) / (1 + x^2 Q(x^2)), a weighted least-squares fit on [0, TANH_LIMIT]; beyond,
the value at the limit, 1 - 2.4e-7. The error is below 5e-7 and no magnitude exceeds one."""

ROUND = np.float32(12582912.0)
"""1.5 * 2^23: adding it rounds a float32 below 2^22 to the nearest integer, ties to even."""
ROUND_BITS = np.int32(0x4B400000)

EXP_LOW, EXP_HIGH = np.float32(-86.5), np.float32(88.5)
LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
EXP_P = tuple(np.array([0.5, 0.166666667, 0.0416666667, 0.00833333333, 0.00138888889], np.float32))
"""exp(x) = 2^k exp(r) with |r| <= ln 2 / 2 and the series of exp(r) up to r^6, whose remainder is
1.2e-7 of the value at most; ln 2 in two parts (Cody and Waite 1980)."""

LOG1P_P = tuple(np.array([0.0909090909, 0.111111111, 0.142857143, 0.2, 0.333333333], np.float32))
"""log(1 + x) = 2 s (1 + s^2/3 + ... + s^10/11), s = x / (2 + x); remainder below 1e-7 on [0, 1]."""

ERF_P = np.float32(0.3275911)
ERF_A = tuple(
    np.array([1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592], np.float32)
)
"""1 - erf(z) = t A(t) exp(-z^2), t = 1 / (1 + p z), z >= 0, with an error below 1.5e-7: Abramowitz
and Stegun, Handbook of Mathematical Functions, 7.1.26."""

_ONE, _HALF, _TWO = np.float32(1.0), np.float32(0.5), np.float32(2.0)


def tanh(x: Array) -> Array:
    """Approximate tanh with absolute error below 5e-7; see `TANH_P`."""
    x = clip(x, -TANH_LIMIT, TANH_LIMIT)
    z = x * x
    p = ((TANH_P[3] * z + TANH_P[2]) * z + TANH_P[1]) * z + TANH_P[0]
    q = (((TANH_Q[3] * z + TANH_Q[2]) * z + TANH_Q[1]) * z + TANH_Q[0]) * z + np.float32(1.0)
    result: Array = (x * p) / q
    return result


def sigmoid(x: Array) -> Array:
    """Approximate 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2 with absolute error below 3e-7."""
    result: Array = _HALF * tanh(_HALF * x) + _HALF
    return result


def exp(x: Array) -> Array:
    """Approximate exp with relative error below 3e-7 on [EXP_LOW, EXP_HIGH], constant beyond."""
    x = clip(x, EXP_LOW, EXP_HIGH)
    shifted: Array = x * LOG2_E + ROUND
    k = shifted - ROUND
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    p = (((EXP_P[4] * r + EXP_P[3]) * r + EXP_P[2]) * r + EXP_P[1]) * r + EXP_P[0]
    p = (p * r) * r + r + _ONE
    exponent = shifted.view(np.int32) - ROUND_BITS  # k; one less below keeps 2^128 out of reach
    scale: Array = ((exponent + np.int32(126)) << 23).view(np.float32)
    result: Array = (p * scale) * _TWO
    return result


def log1p(x: Array) -> Array:
    """Approximate log(1 + x) on [0, 1] with absolute error below 3e-7."""
    s = x / (_TWO + x)
    z = s * s
    p = (((LOG1P_P[0] * z + LOG1P_P[1]) * z + LOG1P_P[2]) * z + LOG1P_P[3]) * z + LOG1P_P[4]
    result: Array = (s + s) * (p * z + _ONE)
    return result


def erfc(z: Array) -> Array:
    """Approximate 1 - erf(z) for z >= 0 with absolute error below 4e-7."""
    t = _ONE / (_ONE + ERF_P * z)
    a = (((ERF_A[0] * t + ERF_A[1]) * t + ERF_A[2]) * t + ERF_A[3]) * t + ERF_A[4]
    result: Array = (a * t) * exp(-(z * z))
    return result


def reciprocal_root(x: Array) -> Array:
    """Approximate x^(-1/2) for x > 0: an estimate from the bits and three Newton steps."""
    y: Array = (np.int32(0x5F375A86) - (x.view(np.int32) >> 1)).view(np.float32)
    half = _HALF * x
    for _ in range(3):
        y = y * (np.float32(1.5) - (half * y) * y)
    return y


def clip(x: Array, low: Array | np.float32, high: Array | np.float32) -> Array:
    """Limit x to [low, high]; NaN stays NaN, so that the finite test at the end sees it."""
    return np.where(x < low, low, np.where(x > high, high, x))


def dot(x: Array, y: Array) -> Array:
    """Sum x[k] y[k] over the last axis for k = 0, 1, ..., starting at zero."""
    total: Array = np.zeros(np.broadcast_shapes(x.shape, y.shape)[:-1], np.float32)
    for k in range(x.shape[-1]):
        total = total + x[..., k] * y[..., k]
    return total


def total(x: Array) -> Array:
    """Sum x[k] over the last axis for k = 0, 1, ..., starting at zero."""
    result: Array = np.zeros(x.shape[:-1], np.float32)
    for k in range(x.shape[-1]):
        result = result + x[..., k]
    return result


def multiply_add(x: Array, weight: Array, start: Array) -> Array:
    """Return start + w[:, 0] x[0] + w[:, 1] x[1] + ..., summed in this order.

    Args:
        x: Inputs, shape (..., in).
        weight: Shape (out, in).
        start: Bias (out,) or earlier sums (..., out).
    """
    result: Array = np.broadcast_to(start, (*x.shape[:-1], len(weight))).copy()
    for k in range(x.shape[-1]):
        result = result + x[..., k, None] * weight[:, k]
    return result

"""Float32 functions that NumPy and C compute with the same operations in the same order.

Their twins are in `export/runtime/sf_math.h`. "Equal" therefore means equal bits, on any machine
that rounds as IEEE 754 asks and does not fuse a multiplication with an addition.
"""

import numpy as np

from safectl.export.program import Array

TANH_LIMIT = np.float32(7.9)
TANH_P = tuple(np.array([0.999999642, 0.129279107, 0.00295382366, 1.14665027e-05], np.float32))
TANH_Q = tuple(np.array([0.462610841, 0.0238260068, 0.000239111949, 2.47282742e-07], np.float32))
"""tanh(x) = x P(x^2) / (1 + x^2 Q(x^2)), a weighted least-squares fit on [0, TANH_LIMIT]; beyond,
the value at the limit, 1 - 2.4e-7. The error is below 5e-7 and no magnitude exceeds one."""


def tanh(x: Array) -> Array:
    """Approximate tanh with absolute error below 5e-7; see `TANH_P`."""
    x = clip(x, -TANH_LIMIT, TANH_LIMIT)
    z = x * x
    p = ((TANH_P[3] * z + TANH_P[2]) * z + TANH_P[1]) * z + TANH_P[0]
    q = (((TANH_Q[3] * z + TANH_Q[2]) * z + TANH_Q[1]) * z + TANH_Q[0]) * z + np.float32(1.0)
    result: Array = (x * p) / q
    return result


def clip(x: Array, low: Array | np.float32, high: Array | np.float32) -> Array:
    """Limit x to [low, high]; NaN stays NaN, so that the finite test at the end sees it."""
    return np.where(x < low, low, np.where(x > high, high, x))


def dot(x: Array, y: Array) -> Array:
    """Sum x[k] y[k] over the last axis for k = 0, 1, ..., starting at zero."""
    total: Array = np.zeros(np.broadcast_shapes(x.shape, y.shape)[:-1], np.float32)
    for k in range(x.shape[-1]):
        total = total + x[..., k] * y[..., k]
    return total

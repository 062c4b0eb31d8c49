"""A box-constrained quadratic program by a fixed number of ADMM iterations, as the C does it.

minimise 1/2 u'Hu + q'u  subject to  low <= u <= high, with H fixed and q = -(H + rho I) c. One
iteration is u = c + rho (H + rho I)^-1 (z - y), then z = clip(v), y = v - z with the over-relaxed
v = relaxation u + (1 - relaxation) z + y (Boyd et al., "Distributed optimization and statistical
learning via ADMM", 2011, sections 3.1.1, 3.4.3 and 5.2).
"""

import numpy as np

from safectl.export.arithmetic import clip
from safectl.export.ops import Array

RELAXATION = np.float32(1.8)
OLD_SHARE = np.float32(-0.8)
"""1 - relaxation. Boyd et al. name 1.5 to 1.8 as the range in which over-relaxation helps."""


def box_qp(centre: Array, weight: Array, low: Array, high: Array, iterations: int) -> Array:
    """Return z after so many iterations from z = y = 0; it is within the limits.

    Args:
        centre: c, shape (batch, n).
        weight: rho (H + rho I)^-1, shape (n, n).
        low: Lower limits, shape (n,).
        high: Upper limits, shape (n,).
        iterations: Number of iterations.
    """
    z: Array = np.zeros_like(centre)
    y: Array = np.zeros_like(centre)
    for _ in range(iterations):
        difference = z - y
        u = centre
        for k in range(centre.shape[1]):
            u = u + difference[:, k, None] * weight[None, :, k]
        v = ((RELAXATION * u) + (OLD_SHARE * z)) + y
        z = clip(v, low, high)
        y = v - z
    return z

"""Angles, discs and braking distances in float32; twins of `export/runtime/sf_geometry.c`."""

import numpy as np

from safectl.export.arithmetic import clip, dot, exp, log1p, reciprocal_root, total
from safectl.export.ops import Array

ROUND = np.float32(12582912.0)
"""1.5 * 2^23: adding it rounds a float32 below 2^22 to the nearest integer."""
FARTHEST_ANGLE = np.float32(4.0e6)
TWO_OVER_PI = np.float32(0.636619772)
HALF_PI = tuple(np.array([1.5703125, 4.83751297e-4, 7.54978996e-8], np.float32))
"""pi / 2 in three parts, so that k pi / 2 is exact for small k (Cody and Waite 1980)."""
SINE_P = tuple(np.array([-1.95152959e-4, 8.33216087e-3, -0.166666546], np.float32))
COSINE_P = tuple(np.array([2.44331571e-5, -1.38873163e-3, 0.0416666457], np.float32))
"""Minimax polynomials on [-pi / 4, pi / 4] of the Cephes library (Moshier 1992), `sinf`, `cosf`."""
MOST_STEPS = np.float32(1.0e6)

_ONE, _HALF = np.float32(1.0), np.float32(0.5)


def sine(x: Array) -> Array:
    """Approximate sin with an absolute error below 2e-7 + 2^-23 |x|; see `turned`."""
    return turned(x, 0)


def cosine(x: Array) -> Array:
    """Approximate cos with an absolute error below 2e-7 + 2^-23 |x|; see `turned`."""
    return turned(x, 1)


def turned(x: Array, quarters: int) -> Array:
    """Return sin(x + quarters pi / 2), x within `FARTHEST_ANGLE`; NaN stays NaN."""
    x = clip(x, -FARTHEST_ANGLE, FARTHEST_ANGLE)
    shifted: Array = x * TWO_OVER_PI + ROUND
    k = shifted - ROUND
    r = ((x - k * HALF_PI[0]) - k * HALF_PI[1]) - k * HALF_PI[2]
    z = r * r
    odd = ((SINE_P[0] * z + SINE_P[1]) * z + SINE_P[2]) * z * r + r
    even = ((COSINE_P[0] * z + COSINE_P[1]) * z + COSINE_P[2]) * z * z - _HALF * z + _ONE
    quadrant = shifted.view(np.int32) + np.int32(quarters)
    value = np.where((quadrant & 1) == 0, odd, even)
    return np.where((quadrant & 2) == 0, value, -value)


def discs(position: Array, centres: Array, radius: np.float32) -> tuple[Array, Array]:
    """Return the distances to circles and their gradients.

    Args:
        position: Shape (batch, d).
        centres: Shape (batch, count, d).
        radius: Of all discs.

    Returns:
        |p - c| - radius, shape (batch, count), and (p - c) / |p - c|, shape (batch, count, d); at
        a centre the first axis.
    """
    offset = position[:, None] - centres
    square = dot(offset, offset)
    at_centre = square == 0
    inverse = reciprocal_root(np.where(at_centre, _ONE, square))
    first = np.zeros_like(offset)
    first[..., 0] = 1.0
    unit = offset * inverse[..., None]
    return square * inverse - radius, np.where(at_centre[..., None], first, unit)


def superellipse(
    position: Array, centre: Array, inverse: Array, doublings: int
) -> tuple[Array, Array]:
    """Return |z|_p - 1 and its gradient for z = (position - centre) inverse, p = 2^doublings.

    Args:
        position: Shape (batch, d).
        centre: Shape (d,).
        inverse: One over the half axes, shape (d,).
        doublings: One or more.

    Returns:
        Shapes (batch, 1) and (batch, d); at the centre the first axis.
    """
    z = (position - centre) * inverse
    size = np.where(z < 0, -z, z)
    largest = size.max(axis=1, keepdims=True)
    at_centre = largest == 0
    share: Array = size / np.where(at_centre, _ONE, largest)
    power = share
    for _ in range(doublings):
        power = power * power
    root = np.where(at_centre, _ONE, total(power)[:, None])
    for _ in range(doublings):
        root = root * reciprocal_root(root)
    share = slope = share / root
    for _ in range(1, doublings):
        slope = slope * slope * share
    first = np.zeros_like(z)
    first[:, 0] = 1.0
    gradient = np.where(at_centre, first, np.where(z < 0, -slope, slope)) * inverse
    return largest * root - _ONE, gradient


def least(values: Array, gradients: Array) -> tuple[Array, Array]:
    """Return the smallest of values (batch, m), and its row of gradients (batch, m, d)."""
    rows, index = np.arange(len(values)), values.argmin(axis=1)
    return values[rows, index][:, None], gradients[rows, index]


def soft_least(values: Array, gradients: Array, sharpness: np.float32) -> tuple[Array, Array]:
    """Return -log(sum exp(-k h)) / k, pair by pair, and its gradient."""
    scaled = -sharpness * values
    joined: Array = scaled[:, 0]
    for column in scaled.T[1:]:
        gap = column - joined
        more = np.where(gap < 0, log1p(exp(gap)), gap + log1p(exp(-gap)))
        joined = joined + more
    weights = exp(scaled - joined[:, None])
    return (-joined / sharpness)[:, None], dot(weights[:, None], gradients.transpose(0, 2, 1))


def stopping_distance(
    motion: Array, low: Array, high: Array, period: np.float32, step: np.float32
) -> tuple[Array, Array]:
    """Return the room left after braking and its gradient; see `barriers/second_order.py`.

    Args:
        motion: Positions, then velocities, shape (batch, 2 d).
        low: Lower limits, shape (d,).
        high: Upper limits, shape (d,).
        period: Time between two actions.
        step: Change of velocity in one period of braking.

    Returns:
        Room below the upper and above the lower limits, shape (batch, 2 d), and its gradient with
        respect to the motion, shape (batch, 2 d, 2 d).
    """
    d = len(low)
    position, velocity = motion[:, :d], motion[:, d:]
    speed: Array = np.where(velocity < 0, -velocity, velocity)
    ratio = clip(speed / step, np.float32(0), MOST_STEPS)
    shifted: Array = ratio + ROUND
    nearest = shifted - ROUND
    n = np.where(nearest > ratio, nearest - _ONE, nearest)
    distance = period * ((n + _HALF) * speed - ((_HALF * step) * n) * (n + _ONE))
    slope = period * (n + _HALF)
    zero = np.float32(0)
    above = (high - position) - np.where(velocity > 0, distance, zero)
    below = (position - low) - np.where(velocity < 0, distance, zero)
    gradient = np.zeros((len(motion), 2 * d, 2 * d), np.float32)
    for axis in range(d):
        gradient[:, axis, axis], gradient[:, d + axis, axis] = -1.0, 1.0
        gradient[:, axis, d + axis] = np.where(velocity[:, axis] > 0, -slope[:, axis], zero)
        gradient[:, d + axis, d + axis] = np.where(velocity[:, axis] < 0, slope[:, axis], zero)
    return np.concatenate([above, below], axis=1), gradient

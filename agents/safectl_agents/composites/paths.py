"""Reference paths about the rest pose, as (samples, 3) arrays of x, y, z [m].

Figure eight, saddle, circle, chirp and square follow published rigs; the swirl replaces a recorded
path and is synthesised.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

Path3 = Float[np.ndarray, "samples 3"]


def figure_eight(samples: int, *, height: float = 0.020, width: float = 0.025) -> Path3:
    """Return x = 0, y = width sin a cos a, z = height sin a with a = n / 150 + pi."""
    angle = np.arange(samples) / 150.0 + np.pi
    zero = np.zeros(samples)
    return np.stack([zero, width * np.sin(angle) * np.cos(angle), height * np.sin(angle)], 1)


def saddle(samples: int, *, radius: float = 0.005, round_samples: float = 1000.0) -> Path3:
    """Return a circle whose height is that of a saddle, turned by 0.5 rad about z."""
    angle = 2.0 * np.pi * np.arange(samples) / round_samples
    y, z = radius * np.cos(angle), radius * np.sin(angle)
    x = -0.0005 * (z**2 - y**2) / radius**2
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    x, y = turn @ np.stack([x, y])
    return np.stack([x, y, z], 1)


def circle(samples: int, *, radius: float = 0.025, round_samples: float = 500.0) -> Path3:
    """Return a circle in the plane x = 0."""
    angle = 2.0 * np.pi * np.arange(samples) / round_samples
    return np.stack([np.zeros(samples), radius * np.cos(angle), radius * np.sin(angle)], 1)


def chirp(samples: int, *, size: float = 0.015) -> Path3:
    """Return motion along the diagonal of y and z: a round takes 1,000 samples, at the end 250."""
    time = np.arange(samples)
    rounds = time / 1000.0 + 0.5 * (1.0 / 250.0 - 1.0 / 1000.0) * time**2 / samples
    motion = size * np.sin(2.0 * np.pi * rounds)
    return np.stack([np.zeros(samples), motion, motion], 1)


def square(samples: int, *, size: float = 0.010, hold: int = 250) -> Path3:
    """Return the four corners of a square in the plane x = 0, each held."""
    corner = np.arange(samples) // hold % 4
    y = np.where((corner == 0) | (corner == 3), size, -size)
    return np.stack([np.zeros(samples), y, np.where(corner < 2, size, -size)], 1)


def swirl(samples: int, *, size: float = 0.004, hold: int = 5) -> Path3:
    """Return a spiral that winds in and out in three dimensions, each point held."""
    point = np.arange(samples) // hold * hold
    angle = 2.0 * np.pi * point / 400.0
    radius = size * np.abs(np.sin(np.pi * point / 1500.0))
    x = 0.5 * size * np.sin(angle / 3.0)
    return np.stack([x, radius * np.cos(angle), radius * np.sin(angle)], 1)


PATHS: Mapping[str, Callable[[int], Path3]] = {
    "figure_eight": figure_eight,
    "saddle": saddle,
    "circle": circle,
    "chirp": chirp,
    "square": square,
    "swirl": swirl,
}
"""All paths by name."""

"""Observations that exercise a program: around its normaliser, or across its bounds."""

import numpy as np

from safectl.export.program import OBSERVATION, Array, Program

_SPREAD = 1.5  # standard deviations: most rows ordinary, some far out


def example_observations(program: Program, rows: int, *, seed: int = 0) -> Array:
    """Draw finite observations, shape (rows, nx), the same ones for the same seed.

    Entries follow the statistics of the program's normaliser if it has one; else they are uniform
    between finite bounds, or standard normal without such bounds.
    """
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((rows, program.spec.nx))
    uniform = rng.random((rows, program.spec.nx))
    for op in program.ops:
        if op.kind == "normalise" and op.inputs == (OBSERVATION,):
            mean, scale = (program.constants[name] for name in op.constants[:2])
            return (mean + _SPREAD * noise / scale).astype(np.float32)
    low = np.array([signal.low for signal in program.spec.observation])
    high = np.array([signal.high for signal in program.spec.observation])
    bounded = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(bounded, low, 0.0), np.where(bounded, high, 1.0)
    return np.where(bounded, low + uniform * (high - low), noise).astype(np.float32)

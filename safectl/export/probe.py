"""What a function of a safeguard computes, found by asking it."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safectl.errors import UnsupportedLayer
from safectl.safeguards.fallback import Law
from safectl.seed import torch_generator

LAW_TOLERANCE = 1e-9
"""Relative deviation from an affine function at which a braking law is refused."""


def chosen_entries(observe: Callable[[Tensor], Tensor], *, nx: int) -> tuple[int, ...]:
    """Find which entries of an observation a function returns, by asking it.

    Raises:
        UnsupportedLayer: If it does anything else than to choose entries.
    """
    numbers = observe(torch.arange(float(nx), dtype=torch.float64).unsqueeze(0))[0]
    chosen = tuple(int(number) for number in numbers.tolist() if 0.0 <= number < nx)
    rows = torch.randn(64, nx, generator=torch_generator(0, "observe"), dtype=torch.float64)
    if not torch.equal(observe(rows), rows[:, list(chosen)]):
        raise UnsupportedLayer(
            "a BarrierQP with a function from observations to states",
            supported=("a state that is part of the observation",),
            advice="Let it choose entries of the observation.",
        )
    return chosen


def affine_law(
    law: Law, *, nx: int, what: str = "a braking law that is not affine in the state"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find weight (n, nx) and bias (n,) of a braking law or another function, by asking it.

    Args:
        law: The function, rows of nx to rows of n.
        nx: Width of its rows.
        what: What it is called where it is not affine.

    Raises:
        UnsupportedLayer: If it is not affine.
    """
    generator = torch_generator(0, "braking law")
    bias = law(torch.zeros(1, nx, dtype=torch.float64))[0]
    weight = (law(torch.eye(nx, dtype=torch.float64)) - bias).T
    rows = 10.0 * torch.randn(64, nx, generator=generator, dtype=torch.float64)
    if not torch.allclose(
        law(rows), rows @ weight.T + bias, rtol=LAW_TOLERANCE, atol=LAW_TOLERANCE
    ):
        raise UnsupportedLayer(
            what,
            supported=("a fixed action", "velocities", "an affine law"),
            advice="Replace it by an affine function; the limits of the action then clip it.",
        )
    return weight.numpy(), bias.numpy()

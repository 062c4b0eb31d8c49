"""The one helper with which tests compare derivatives with finite differences, in float64."""

from collections.abc import Callable

import torch
from torch import Tensor

STEP = 1e-6
"""Central differences in float64: truncation of order STEP^2, rounding of order 1e-16 / STEP."""

TOLERANCE = 1e-7
"""Ten times the expected error of order 1e-9 for values of order ten."""


def jacobian(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """Return d function / d point, shape (batch, m, n), for rows (batch, n) -> (batch, m)."""
    assert point.dtype == torch.float64
    columns = []
    for index in range(point.shape[1]):
        step = torch.zeros_like(point)
        step[:, index] = STEP
        columns.append((function(point + step) - function(point - step)) / (2.0 * STEP))
    return torch.stack(columns, dim=-1).detach()

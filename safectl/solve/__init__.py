"""Projections on half-spaces and limits, batched, with evidence.

Sets stated in CVXPY are in `safectl.solve.convex`, which is imported by name because CVXPY takes a
second to import.
"""

from safectl.solve.dispatch import project
from safectl.solve.projection import Projection, rounding_band
from safectl.solve.qp import solve_qp

__all__ = ["Projection", "project", "rounding_band", "solve_qp"]

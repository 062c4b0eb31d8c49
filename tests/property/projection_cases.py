"""Random projection problems of known feasibility, and Clarabel as the oracle for one of them."""

from typing import NamedTuple

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]

KINDS = (
    "open",
    "touching",
    "equality",
    "duplicate",
    "parallel",
    "zero",
    "contradiction",
    "farkas",
    "unreachable",
    "zero_contradiction",
)
INFEASIBLE = frozenset({"contradiction", "farkas", "unreachable", "zero_contradiction"})
CLEAR_GAP = 0.01  # by how much infeasible problems are infeasible, in units of the constraint
ORACLE_TOLERANCE = 1e-12  # gap of a 1-strongly convex problem: error of the point < sqrt(2e-12)


class Case(NamedTuple):
    kind: str
    point: Array
    normals: Array
    offsets: Array
    low: Array
    high: Array

    @property
    def feasible(self) -> bool:
        return self.kind not in INFEASIBLE


def draw(rng: np.random.Generator, kind: str, m: int, nu: int, low: Array, high: Array) -> Case:
    """Draw a problem; a proposal in three lies outside the limits, rows differ in length."""
    point = low + (high - low) * rng.uniform(-0.7, 1.7, nu)
    inner = low + (high - low) * rng.uniform(0.1, 0.9, nu)
    normals = rng.normal(size=(m, nu))
    offsets = normals @ inner - rng.uniform(0.01, 0.5, m)
    first, last = rng.permutation(m)[[0, -1]]
    if kind == "touching":
        offsets = normals @ inner
    elif kind == "equality" and m > 1:
        normals[last], offsets[first] = -normals[first], normals[first] @ inner
        offsets[last] = -offsets[first]
    elif kind == "duplicate":
        normals[last], offsets[last] = normals[first], offsets[first]
    elif kind == "parallel":
        normals[last] = rng.uniform(0.1, 3.0) * normals[first]
        offsets[last] = normals[last] @ inner - rng.uniform(0.0, 0.5)
    elif kind == "zero":
        normals[first], offsets[first] = 0.0, -rng.integers(0, 2)
    elif kind == "contradiction" and m > 1:
        normals[last] = -normals[first]
        offsets[last] = -offsets[first] + rng.uniform(CLEAR_GAP, 0.5)
    elif kind == "farkas" and m > 2:
        weights = rng.uniform(0.2, 1.0, m)
        weights[last] = 0.0
        normals[last] = -(weights @ normals)
        offsets[last] = -(weights @ offsets) + rng.uniform(CLEAR_GAP, 0.5)
    elif kind == "zero_contradiction":
        normals[first], offsets[first] = 0.0, rng.uniform(CLEAR_GAP, 0.5)
    elif kind in INFEASIBLE:
        best = np.maximum(normals[first] * low, normals[first] * high).sum()
        offsets[first] = best + rng.uniform(CLEAR_GAP, 0.5)
    scale = 10.0 ** rng.uniform(-1.0, 1.0, m)
    return Case(kind, point, normals * scale[:, None], offsets * scale, low, high)


def batch(seed: int, count: int, m: int, nu: int) -> list[Case]:
    """Draw problems of every kind in turn, with limits of their own size per action."""
    rng = np.random.default_rng([seed, m, nu])
    low = -rng.uniform(0.3, 2.0, nu)
    high = rng.uniform(0.3, 2.0, nu)
    return [draw(rng, KINDS[k % len(KINDS)], m, nu, low, high) for k in range(count)]


def clarabel_projection(case: Case) -> Array | None:
    """Solve one problem as stated; None if Clarabel proves that it is infeasible."""
    nu = len(case.point)
    eye = np.eye(nu)
    rows = sparse.csc_matrix(np.vstack([-case.normals, eye, -eye]))
    bounds = np.concatenate([-case.offsets, case.high, -case.low])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = ORACLE_TOLERANCE
    cones = [clarabel.NonnegativeConeT(len(bounds))]
    hessian = sparse.csc_matrix(eye)
    solution = clarabel.DefaultSolver(hessian, -case.point, rows, bounds, cones, settings).solve()
    status = str(solution.status)
    if "Infeasible" in status:
        return None
    if status not in {"Solved", "AlmostSolved", "InsufficientProgress"}:
        raise AssertionError(f"the oracle ended with {status} on a {case.kind} problem")
    return np.array(solution.x)

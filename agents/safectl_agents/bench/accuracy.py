"""Benchmark of the projection's accuracy against Clarabel."""

import clarabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from safectl.seed import numpy_generator
from safectl.solve import project
from safectl_agents.bench.benchmark import Measurement

PROBLEMS = 2000
_TOLERANCE = 1e-12
_GAP = 0.05

Array = NDArray[np.float64]


def projection_error() -> Measurement:
    """Compare 2,000 random projections in float64 with Clarabel: largest distance of the points.

    Half are feasible and half contradict themselves by a margin. With wrong flags the value is
    their number.
    """
    generator = numpy_generator(0, "projection accuracy")
    worst, wrong = 0.0, 0
    for index in range(PROBLEMS):
        m, nu = int(generator.integers(1, 7)), int(generator.integers(1, 9))
        feasible = index % 2 == 0
        point, normals, offsets = _draw(generator, m, nu, feasible=feasible)
        p, A, b = (torch.as_tensor(x)[None] for x in (point, normals, offsets))
        limits = torch.ones(nu, dtype=torch.float64)
        answer = project(p, A, b, -limits, limits)
        wrong += bool(answer.feasible) != feasible
        if feasible:
            distance = np.abs(answer.point[0].numpy() - _clarabel(point, normals, offsets)).max()
            worst = max(worst, float(distance))
    details = {"problems": PROBLEMS, "seed": 0, "wrong_flags": wrong, "dtype": "float64"}
    return Measurement(worst if wrong == 0 else float(wrong), details=details)


def _draw(
    generator: np.random.Generator, m: int, nu: int, *, feasible: bool
) -> tuple[Array, Array, Array]:
    point, normals = generator.uniform(-2, 2, nu), generator.normal(size=(m, nu))
    inside = generator.uniform(-0.9, 0.9, nu)
    offsets = normals @ inside - generator.uniform(0.0, 0.3, m)
    if not feasible:
        normals[0] = generator.normal(size=nu)
        offsets[0] = np.abs(normals[0]).sum() + _GAP
    return point, normals, offsets


def _clarabel(point: Array, normals: Array, offsets: Array) -> Array:
    nu = len(point)
    eye = np.eye(nu)
    matrix = sparse.csc_matrix(np.vstack([-normals, eye, -eye]))
    bounds = np.concatenate([-offsets, np.ones(2 * nu)])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = _TOLERANCE
    cones = [clarabel.NonnegativeConeT(len(bounds))]
    quadratic = sparse.csc_matrix(eye)
    solver = clarabel.DefaultSolver(quadratic, -point, matrix, bounds, cones, settings)
    return np.asarray(solver.solve().x)

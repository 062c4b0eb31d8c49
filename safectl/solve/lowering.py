"""From CVXPY constraints to A(theta) u >= b(theta), once, at construction.

CVXPY reduces the constraints to G(theta) (u, t) + c(theta) in a cone. Both are affine in the
parameters theta because the constraints follow its rules for parametrised programs. t are the
auxiliary variables behind abs, max, norm1 and the like. They are eliminated here by Fourier and
Motzkin: every pair of rows with opposite signs of t gives one row without it. The combinations have
constant weights, so the result is affine in theta too, and describes exactly the actions for which
some t exists.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import torch
from cvxpy.atoms.sum_squares import sum_squares
from cvxpy.constraints.constraint import Constraint
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ParamConeProg
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from safectl.errors import ConvexityError

MOST_ROWS = 256
"""Rows after elimination: norm1 of eight actions. More is a modelling mistake or needs a solver."""

ZERO_WEIGHT = 1e-12
"""Auxiliary coefficients are small whole numbers; a sum of them below this is zero by rounding."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AffineRows:
    """Rows [A | b] of A u >= b as an affine function of the parameters, in float64.

    Attributes:
        constant: Shape (rows, nu + 1).
        linear: One such matrix per parameter entry, shape (entries, rows, nu + 1).
    """

    constant: Tensor
    linear: Tensor

    def at(
        self, values: Float[Tensor, "batch entries"]
    ) -> tuple[Float[Tensor, "batch m nu"], Float[Tensor, "batch m"]]:
        """Return A, shape (batch, m, nu), and b, shape (batch, m), for parameter values."""
        constant, linear = self.constant.to(values), self.linear.to(values)
        rows = torch.einsum("bp,pmk->bmk", values, linear) + constant
        return rows[..., :-1], rows[..., -1]


def lower(
    action: cp.Variable, parameters: Sequence[cp.Parameter], constraints: Sequence[Constraint]
) -> AffineRows:
    """Lower constraints to affine rows.

    Entries of the parameters are counted in the order given, row by row in a matrix.

    Raises:
        ConvexityError: If a constraint is not linear after reduction, naming it.
    """
    program = _reduce(action, constraints)
    equal, rows = program.cone_dims.zero, program.constr_size
    if rows != equal + program.cone_dims.nonneg:
        raise ConvexityError(_name_nonlinear(action, constraints))
    matrices = np.stack([_matrix(program, action, values) for values in _probes(parameters)])
    if not np.isfinite(matrices).all():
        raise ConvexityError("a constraint holds NaN or infinity; leave out what does not bind")
    nu, constant, differences = action.size, matrices[0], matrices[1:] - matrices[0]
    if np.any(differences[:, :, nu:-1]):
        raise ConvexityError(
            "a parameter multiplies abs, max, norm1 or another piecewise function of the action; "
            "write the product as linear constraints, or divide the constraint by the parameter"
        )
    twice = np.concatenate([np.eye(rows), -np.eye(rows)[:equal]])
    weights = _eliminate(twice @ constant[:, nu:-1]) @ twice
    if len(weights) > MOST_ROWS:
        raise ConvexityError(f"the constraints expand to {len(weights)} rows, most {MOST_ROWS}")
    keep = [*range(nu), constant.shape[1] - 1]
    sign = np.array([1.0] * nu + [-1.0])  # G u + c >= 0 is A u >= b with A = G, b = -c
    return AffineRows(
        torch.from_numpy((weights @ constant[:, keep]) * sign),
        torch.from_numpy((weights @ differences[:, :, keep]) * sign),
    )


def _reduce(action: cp.Variable, constraints: Sequence[Constraint]) -> ParamConeProg:
    """Let CVXPY reduce the constraints; the objective only makes the action appear."""
    problem = cp.Problem(cp.Minimize(sum_squares(action)), list(constraints))
    program: ParamConeProg = problem.get_problem_data(cp.CLARABEL)[0]["param_prob"]
    return program


def _probes(parameters: Sequence[cp.Parameter]) -> Iterator[dict[int, Array]]:
    """Zero, then one unit vector per parameter entry: they determine an affine function."""
    zero = {parameter.id: np.zeros(parameter.shape) for parameter in parameters}
    yield zero
    for parameter in parameters:
        for entry in range(parameter.size):
            unit = np.zeros(parameter.size)
            unit[entry] = 1.0
            yield zero | {parameter.id: unit.reshape(parameter.shape)}


def _matrix(program: ParamConeProg, action: cp.Variable, values: Mapping[int, Array]) -> Array:
    """[G | c] at parameter values, the columns of the action first, auxiliary ones after them."""
    known = {parameter.id: values[parameter.id] for parameter in program.parameters}
    *_, matrix, vector = program.apply_parameters(known, quad_obj=True)
    first = program.var_id_to_col[action.id]
    order = np.roll(np.arange(matrix.shape[1]), -first)
    mine, rest = order[: action.size], np.sort(order[action.size :])
    dense = np.asarray(matrix.todense(), dtype=np.float64)
    return np.column_stack([dense[:, mine], dense[:, rest], vector])


def _eliminate(auxiliary: Array) -> Array:
    """Weights W >= 0 with W G_t = 0 that describe the projection along t, shape (rows, rows in).

    Kohler's rule drops redundant rows: after k eliminations, those that combine more than k + 1.
    """
    weights, left = np.eye(len(auxiliary)), list(range(auxiliary.shape[1]))
    eliminated = 0
    while left:
        values = weights @ auxiliary
        values[np.abs(values) < ZERO_WEIGHT] = 0.0
        pairs = {t: int((values[:, t] > 0.0).sum() * (values[:, t] < 0.0).sum()) for t in left}
        column = min(left, key=pairs.__getitem__)
        left.remove(column)
        eliminated += 1
        plus, minus = values[:, column] > 0.0, values[:, column] < 0.0
        above = weights[plus] / values[plus, column, None]
        below = weights[minus] / -values[minus, column, None]
        sums = (above[:, None, :] + below[None, :, :]).reshape(-1, weights.shape[1])
        weights = np.concatenate([weights[values[:, column] == 0.0], sums])
        weights = weights[(weights > 0.0).sum(1) <= eliminated + 1]
        if len(weights) > MOST_ROWS * (1 + len(left)):
            raise ConvexityError(
                f"eliminating the auxiliary variables gives {len(weights)} rows; state the set "
                "with fewer piecewise terms"
            )
    return np.unique(weights, axis=0)


def _name_nonlinear(action: cp.Variable, constraints: Sequence[Constraint]) -> str:
    """Find the first constraint that needs more than a linear cone, and say which."""
    for index, constraint in enumerate(constraints):
        cones = _reduce(action, [constraint]).cone_dims
        names = {
            "a second-order cone": cones.soc,
            "an exponential cone": cones.exp,
            "a semidefinite cone": cones.psd,
            "a power cone": [*cones.p3d, *cones.pnd],
        }
        for name, size in names.items():
            if size:
                return (
                    f"constraint {index} ({constraint}) needs {name}; only constraints that reduce "
                    "to linear ones become a quadratic program: use bounds, abs, max, norm1, "
                    "norm_inf, or linearise it at the state and pass the gradient as a parameter"
                )
    return "the constraints do not reduce to linear ones"

"""A set stated in CVXPY: lowered to the QP that ships, and solved as stated as its oracle."""

from collections.abc import Mapping, Sequence

import cvxpy as cp
import numpy as np
import torch
from cvxpy.atoms.sum_squares import sum_squares
from cvxpy.constraints.constraint import Constraint
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from safectl.errors import ConvexityError, RangeError, ShapeError, UnknownNameError
from safectl.solve.dispatch import project
from safectl.solve.lowering import lower
from safectl.solve.projection import Projection

ORACLE_TOLERANCE = 1e-12
"""Gap and feasibility asked of Clarabel: a gap g of the distance leaves an error of sqrt(2 g)."""

SIGN_ATTRIBUTES = frozenset({"nonneg", "nonpos", "pos", "neg"})


class ConvexSet:
    """Actions that meet constraints stated in CVXPY, for every value of their parameters.

    The constraints must be linear in the action, or piecewise linear (abs, max, norm1, norm_inf),
    and follow CVXPY's rules for parametrised programs. Equalities become two inequalities each. A
    sign declared on a parameter is used by CVXPY to judge convexity; `project` does not check it.

    Args:
        action: The variable, shape (nu,), without attributes.
        parameters: Every parameter of the constraints by name: the state, or features of it.
        constraints: What the action has to meet, besides its limits. A bool, which CVXPY makes of
            a comparison without variables, is refused.
        low: Lower limits of the action, nu finite numbers in its units.
        high: Upper limits, each above its lower one.

    Raises:
        ConvexityError: If a constraint is no such constraint, naming it.
        ShapeError: If the action is not a vector, or the limits are not nu numbers.
        RangeError: If a limit is not finite or not below its counterpart.
    """

    def __init__(
        self,
        action: cp.Variable,
        parameters: Mapping[str, cp.Parameter],
        constraints: Sequence[Constraint | bool],
        *,
        low: Sequence[float],
        high: Sequence[float],
    ) -> None:
        _check_action(action)
        _check_limits(action.size, low, high)
        for name, parameter in parameters.items():
            _refuse_attributes(f"parameter {name!r}", parameter, allowed=SIGN_ATTRIBUTES)
        checked = [
            _checked(f"constraint {index} ({constraint})", constraint, action, parameters)
            for index, constraint in enumerate(constraints)
        ]
        self.low, self.high = tuple(map(float, low)), tuple(map(float, high))
        self._parameters = dict(parameters)
        self._rows = lower(action, list(parameters.values()), checked)
        self._action, self._proposal = action, cp.Parameter(action.shape)
        limits = [action >= np.array(self.low), action <= np.array(self.high)]
        distance = cp.Minimize(0.5 * sum_squares(action - self._proposal))
        self._problem = cp.Problem(distance, [*checked, *limits])

    @property
    def nu(self) -> int:
        """Number of actions."""
        return len(self.low)

    def rows(
        self, values: Mapping[str, Float[Tensor, "..."]], action: Float[Tensor, "batch nu"]
    ) -> tuple[Float[Tensor, "batch m nu"], Float[Tensor, "batch m"]]:
        """Return A, shape (batch, m, nu), and b, shape (batch, m), of A u >= b without the limits.

        Args:
            values: One tensor per parameter, shape (batch, *shape of the parameter).
            action: Proposals; their number, dtype and device count, not their values.

        Raises:
            UnknownNameError: If a name is not that of a parameter.
            ConvexityError: If a parameter has no value.
            ShapeError: If a value has the wrong shape.
        """
        self._check_names(values)
        for name, parameter in self._parameters.items():
            expected = (len(action), *parameter.shape)
            if values[name].shape != expected:
                raise ShapeError(name, expected=expected, got=tuple(values[name].shape))
        flat = [values[name].reshape(len(action), p.size) for name, p in self._parameters.items()]
        return self._rows.at(torch.cat([action.new_zeros(len(action), 0), *flat], dim=1))

    def project(
        self,
        values: Mapping[str, Float[Tensor, "..."]],
        action: Float[Tensor, "batch nu"],
    ) -> Projection:
        """Return the nearest admissible action per row, with the QP that ships.

        Args:
            values: One tensor per parameter, shape (batch, *shape of the parameter).
            action: Proposals, shape (batch, nu).

        Raises:
            UnknownNameError, ConvexityError, ShapeError: As `rows`.
        """
        normals, offsets = self.rows(values, action)
        low, high = action.new_tensor(self.low), action.new_tensor(self.high)
        return project(action, normals, offsets, low, high)

    def oracle(
        self, values: Mapping[str, ArrayLike], action: ArrayLike
    ) -> NDArray[np.float64] | None:
        """Solve one problem as stated, with CVXPY and Clarabel in float64.

        Sets the values of the parameters. A few milliseconds; not for the control loop.

        Args:
            values: One array per parameter, in its shape.
            action: The proposal, shape (nu,).

        Returns:
            The nearest admissible action, shape (nu,), or None if there is none.

        Raises:
            ConvexityError: If a parameter has no value, or Clarabel could not decide.
            UnknownNameError: If a name is not that of a parameter.
        """
        self._check_names(values)
        for name, parameter in self._parameters.items():
            parameter.value = np.asarray(values[name], dtype=np.float64)
        self._proposal.value = np.asarray(action, dtype=np.float64)
        tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), ORACLE_TOLERANCE)
        self._problem.solve(solver=cp.CLARABEL, **tight)  # type: ignore[no-untyped-call]  # CVXPY's
        status = self._problem.status
        if status in {cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE}:
            return None
        if status != cp.OPTIMAL:
            raise ConvexityError(f"Clarabel ended with {status!r}; scale the constraints")
        return np.array(self._action.value, dtype=np.float64)

    def _check_names(self, values: Mapping[str, object]) -> None:
        for name in values:
            if name not in self._parameters:
                raise UnknownNameError("parameter", name, known=list(self._parameters))
        missing = [name for name in self._parameters if name not in values]
        if missing:
            raise ConvexityError(f"no value for the parameters {', '.join(missing)}")


def _check_action(action: cp.Variable) -> None:
    if action.ndim != 1:
        raise ShapeError("the CVXPY variable of the action", expected=("nu",), got=action.shape)
    _refuse_attributes("the action", action, allowed=frozenset())


def _check_limits(nu: int, low: Sequence[float], high: Sequence[float]) -> None:
    for name, limit in (("low", low), ("high", high)):
        if len(limit) != nu:
            raise ShapeError(name, expected=(nu,), got=(len(limit),))
    for index, pair in enumerate(zip(low, high, strict=True)):
        if not (np.isfinite(pair).all() and pair[0] < pair[1]):
            expected = "finite limits with low < high"
            raise RangeError(f"limits of action {index}", value=pair, expected=expected)


def _refuse_attributes(
    name: str, leaf: cp.Variable | cp.Parameter, allowed: frozenset[str]
) -> None:
    """Refuse integer, semidefinite, symmetric and other attributes of a variable or parameter."""
    wrong = [key for key, value in leaf.attributes.items() if _is_set(value) and key not in allowed]
    if wrong:
        raise ConvexityError(
            f"{name} has the attribute {', '.join(wrong)}; leave it out and write a constraint"
        )


def _is_set(attribute: object) -> bool:
    return attribute is not None and attribute is not False


def _checked(
    name: str,
    constraint: Constraint | bool,
    action: cp.Variable,
    parameters: Mapping[str, cp.Parameter],
) -> Constraint:
    if not isinstance(constraint, Constraint):
        raise ConvexityError(f"{name} is not a CVXPY constraint but a {type(constraint).__name__}")
    foreign = [v.name() for v in constraint.variables() if v.id != action.id]
    if foreign:
        raise ConvexityError(f"{name} has variables other than the action: {', '.join(foreign)}")
    known = {parameter.id for parameter in parameters.values()}
    unbound = [p.name() for p in constraint.parameters() if p.id not in known]
    if unbound:
        raise ConvexityError(f"{name} has unbound parameters: {', '.join(unbound)}; name each one")
    if not constraint.is_dcp(dpp=False):
        raise ConvexityError(f"{name} is not convex by CVXPY's rules")
    if not constraint.is_dcp(dpp=True):
        raise ConvexityError(
            f"{name} is not a parametrised (DPP) constraint: it is not affine in its parameters; "
            "pass the nonlinear expression of the state as a parameter of its own"
        )
    return constraint

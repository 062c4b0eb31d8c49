"""Model predictive control of a linear model with limits on the action, as one small program.

The states are eliminated: over a horizon of H actions only H nu variables remain, bounded by the
limits and nothing else. The quadratic program is then the same in every step but for a linear term
that is linear in the state, so all that is costly is computed once.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.solve import solve_qp
from safectl.spec import Spec
from safectl.types import Certificate, Plan, Status

RICCATI_STEPS = 100_000
RICCATI_TOLERANCE = 1e-12
"""Relative change of the terminal cost in one step at which the recursion has converged."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearMPC:
    """Drives x[k+1] = A x[k] + B u[k] to zero at least cost, within the limits of the action.

    minimise  1/2 sum_{k < H} (x_k' Q x_k + u_k' R u_k) + 1/2 x_H' P x_H,  low <= u_k <= high,
    where P is the cost that is left after H without limits (the solution of the discrete Riccati
    equation). Not promised: stability from states where the limits would still bind after H, and
    limits on the state.

    Attributes:
        spec: Signals; the observation is the state, and the action has the limits.
        A: State matrix of one period, shape (nx, nx), float64.
        B: Input matrix of one period, shape (nx, nu), float64.
        Q: Cost of the state, symmetric, no eigenvalue below zero, shape (nx, nx).
        R: Cost of the action, symmetric positive definite, shape (nu, nu).
        horizon: Number H of actions, at least one.
        terminal: P, shape (nx, nx).
        hessian: H of 1/2 U'HU + (F x)'U over the actions U of the whole horizon.
        slope: F of the same, shape (horizon nu, nx).

    Raises:
        ShapeError: If the sizes disagree.
        RangeError: If the horizon is below one, a cost is not as said, or (A, B) cannot be
            stabilised.
    """

    spec: Spec
    A: Float[Tensor, "nx nx"]
    B: Float[Tensor, "nx nu"]
    Q: Float[Tensor, "nx nx"]
    R: Float[Tensor, "nu nu"]
    horizon: int
    terminal: Float[Tensor, "nx nx"] = field(init=False)
    hessian: Float[Tensor, "n n"] = field(init=False)
    slope: Float[Tensor, "n nx"] = field(init=False)
    _free: Float[Tensor, "states nx"] = field(init=False)
    _forced: Float[Tensor, "states n"] = field(init=False)

    def __post_init__(self) -> None:
        nx, nu = self.spec.nx, self.spec.nu
        shapes = {"A": (nx, nx), "B": (nx, nu), "Q": (nx, nx), "R": (nu, nu)}
        for name, shape in shapes.items():
            matrix: Tensor = getattr(self, name)
            if matrix.shape != shape:
                raise ShapeError(name, expected=shape, got=tuple(matrix.shape))
            object.__setattr__(self, name, matrix.double())
        if self.horizon < 1:
            raise RangeError("horizon", value=self.horizon, expected="at least 1")
        for name, cost, least in (("Q", self.Q, -1e-12), ("R", self.R, 1e-12)):
            if not torch.allclose(cost, cost.T) or float(torch.linalg.eigvalsh(cost)[0]) < least:
                value = cost.tolist()
                raise RangeError(name, value=value, expected="symmetric, positive (semi)definite")
        self._condense()

    def _condense(self) -> None:
        """Eliminate the states."""
        nx, steps = self.spec.nx, self.horizon
        terminal = _riccati(self.A, self.B, self.Q, self.R)
        free, forced = _response(self.A, self.B, steps)
        stages = [self.Q @ forced[k * nx : (k + 1) * nx] for k in range(steps - 1)]
        weighted = torch.cat([*stages, terminal @ forced[-nx:]])
        cost = torch.kron(torch.eye(steps, dtype=torch.float64), self.R)
        hessian = forced.T @ weighted + cost
        results = (terminal, 0.5 * (hessian + hessian.T), weighted.T @ free, free, forced)
        names = ("terminal", "hessian", "slope", "_free", "_forced")
        for name, result in zip(names, results, strict=True):
            object.__setattr__(self, name, result)

    def plan(self, observation: Float[Tensor, "batch nx"], /) -> Plan:
        """Plan from every row, exactly, in float64.

        Returns:
            States after each action, actions, and a certificate whose margin is the distance to
            the nearest limit. A row that is not finite has status `FALLBACK` and the centre of
            the limits as actions.
        """
        state = observation.double()
        none = state.new_zeros(len(state), 0, len(self.hessian)), state.new_zeros(len(state), 0)
        low = state.new_tensor(self.spec.action_low * self.horizon)
        high = state.new_tensor(self.spec.action_high * self.horizon)
        found = solve_qp(self.hessian, state @ self.slope.T, none, low, high)
        states = state @ self._free.T + found.point @ self._forced.T
        margin = torch.minimum(found.point - low, high - found.point).amin(-1)
        status = torch.where(found.feasible, Status.CORRECTED.value, Status.FALLBACK.value)
        certificate = Certificate(
            status.to(torch.int8), margin, (~found.feasible).to(margin), found.residual
        )
        shape = (len(state), self.horizon)
        return Plan(
            states.reshape(*shape, -1).to(observation),
            found.point.reshape(*shape, -1).to(observation),
            certificate,
        )


def _riccati(A: Tensor, B: Tensor, Q: Tensor, R: Tensor) -> Tensor:
    """Return the solution of the discrete Riccati equation, by its recursion."""
    cost: Tensor = Q
    for _ in range(RICCATI_STEPS):
        gain = torch.linalg.solve(R + B.T @ cost @ B, B.T @ cost @ A)
        after = Q + A.T @ cost @ (A - B @ gain)
        change = float((after - cost).abs().max())
        cost = 0.5 * (after + after.T)
        size = float(cost.abs().max())
        if not math.isfinite(size):
            break
        if change <= RICCATI_TOLERANCE * size:
            return cost
    raise RangeError("A, B", value=A.tolist(), expected="a model that can be stabilised")


def _response(A: Tensor, B: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """States after 1 .. H periods: free (H nx, nx) from the state, forced (H nx, H nu)."""
    nx, nu = B.shape
    free, forced = [], []
    power, row = torch.eye(nx, dtype=torch.float64), B.new_zeros(nx, steps * nu)
    for k in range(steps):
        power, row = A @ power, A @ row
        row[:, k * nu : (k + 1) * nu] = B
        free.append(power)
        forced.append(row.clone())
    return torch.cat(free), torch.cat(forced)

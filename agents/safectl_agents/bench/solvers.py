"""Benchmarks of the projection and of the barrier filter against solvers that others use."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import cvxpy as cp
import numpy as np
import proxsuite
import torch
from cvxpy.atoms.sum_squares import sum_squares
from numpy.typing import NDArray
from torch import Tensor

from safectl.barriers import linearise
from safectl.barriers.half_spaces import corridor
from safectl.dynamics import double_integrator
from safectl.export import Native
from safectl.safeguards import BarrierQP, Brake
from safectl.seed import torch_generator
from safectl.solve import project
from safectl.spec import Signal, Spec
from safectl_agents.bench.benchmark import Measurement
from safectl_agents.bench.programs import guarded_program
from safectl_agents.bench.timing import Timing, time_calls

ROWS = 4096
_SAMPLE = 256
_PERIOD = 0.05
_SOLVER_TOLERANCE = 1e-8
_TIMED = 50

Array = NDArray[np.float64]


class _Problem(NamedTuple):
    """The barrier filter of a planar double integrator in a corridor, and rows to filter."""

    filter: BarrierQP
    state: Tensor
    action: Tensor
    normals: Tensor
    offsets: Tensor


def cbf_batch_vs_cvxpy() -> Measurement:
    """Filter 4,096 rows with two constraints, against one CVXPY+Clarabel solve per row."""
    problem = _problem()
    ours = _time_batch(lambda: problem.filter.filter(problem.state, problem.action))
    solve = _cvxpy(2, 2)
    rows = range(_SAMPLE)
    data = [x.double().numpy() for x in (problem.action, problem.normals, problem.offsets)]

    def loop() -> None:
        for row in rows:
            solve(data[0][row], data[1][row], data[2][row])

    theirs = time_calls(loop, calls=3, warm_up=1).median * ROWS / _SAMPLE
    details = {"seed": 0, "rows": ROWS, "constraints": 2, "actions": 2, "threads": 1}
    details |= {"rows_of_cvxpy": _SAMPLE}
    return Measurement(theirs / ours, ours, theirs, details=details)


def projection_batch_vs_proxqp() -> Measurement:
    """Project 4,096 points on two half-spaces and a box, against ProxQP's batched solver."""
    problem = _problem()
    high = torch.ones(2, dtype=torch.float64)
    point, normals, offsets = (
        part.double() for part in (problem.action, problem.normals, problem.offsets)
    )
    ours = _time_batch(lambda: project(point, normals, offsets, -high, high))
    batch = proxsuite.proxqp.dense.BatchQP()
    for row in range(ROWS):
        _add_proxqp(batch, problem, row)
    theirs = time_calls(
        lambda: proxsuite.proxqp.dense.solve_in_parallel(batch, 2), calls=3, warm_up=0
    ).median
    answer = project(point, normals, offsets, -high, high)
    found = torch.tensor(np.stack([batch.get(row).results.x for row in range(ROWS)]))
    apart = (answer.point - found)[answer.feasible].abs().max()
    details = {
        "seed": 0,
        "rows": ROWS,
        "constraints": 2,
        "actions": 2,
        "dtype": "float64",
        "threads_ours": 1,
        "threads_theirs": 2,
        "largest_difference": float(apart),
    }
    return Measurement(theirs / ours, ours, theirs, details=details)


def step_p99_vs_cvxpy() -> Measurement:
    """Time one guarded control step as compiled C, against one CVXPY solve of a projection.

    Ours does more: policy, learned model and projection on a half-space in six actions. Both are
    99th percentiles; every problem that CVXPY gets is feasible.
    """
    native = Native(guarded_program())
    observations = np.random.default_rng(0).normal(size=(1000, 17)).astype(np.float32)
    index = itertools.cycle(range(1000))
    ours = time_calls(lambda: native.step(observations[next(index)]), calls=20_000)
    theirs = _time_cvxpy(1, 6)
    details = {"seed": 0, **ours.as_details("c_step"), **theirs.as_details("cvxpy")}
    return Measurement(theirs.p99 / ours.p99, ours.p99, theirs.p99, details=details)


def barrier_row_p99_vs_cvxpy() -> Measurement:
    """Time the barrier filter in torch on one row, against one CVXPY solve of that size."""
    problem = _problem()
    index = itertools.cycle(range(1000))

    def one() -> None:
        row = next(index)
        problem.filter.filter(problem.state[row : row + 1], problem.action[row : row + 1])

    ours, theirs = time_calls(one, calls=1000), _time_cvxpy(2, 2)
    details = {"seed": 0, **ours.as_details("torch_row"), **theirs.as_details("cvxpy")}
    return Measurement(theirs.p99 / ours.p99, ours.p99, theirs.p99, details=details)


def _time_cvxpy(m: int, nu: int) -> Timing:
    """Time single solves of random feasible projections."""
    solve, generator = _cvxpy(m, nu), np.random.default_rng(0)
    points, inside = generator.uniform(-1, 1, (2, 1000, nu))
    normals = generator.normal(size=(1000, m, nu))
    offsets = (normals @ inside[..., None])[..., 0]
    index = itertools.cycle(range(1000))

    def one() -> None:
        row = next(index)
        solve(points[row], normals[row], offsets[row])

    return time_calls(one, calls=1000)


def _problem() -> _Problem:
    spec = Spec(
        observation=tuple(
            Signal(name, unit, -10.0, 10.0)
            for name, unit in (("x", "m"), ("y", "m"), ("vx", "m/s"), ("vy", "m/s"))
        ),
        action=(Signal("ax", "m/s^2", -1.0, 1.0), Signal("ay", "m/s^2", -1.0, 1.0)),
        period=_PERIOD,
    )
    barrier = corridor((0.0, 0.0), (1.0, 0.3), 1.0, positions=(2, 3))  # a limit on the velocity
    dynamics = double_integrator(_PERIOD, axes=2)
    guard = BarrierQP(barrier, dynamics, fallback=Brake(spec, velocities=(2, 3)), rate=0.5)
    generator = torch_generator(0, "solver benchmarks")
    state = 1.6 * torch.rand(ROWS, 4, generator=generator) - 0.8
    action = 3.0 * torch.rand(ROWS, 2, generator=generator) - 1.5
    at_rest = linearise(barrier, dynamics.predict(state, torch.zeros_like(action)).mean)
    gain = dynamics.Bd.to(state)
    normals = at_rest.gradient @ gain
    offsets = 0.5 * barrier.value(state) - at_rest.value
    return _Problem(guard, state, action, normals, offsets)


def _cvxpy(m: int, nu: int) -> Callable[[Array, Array, Array], object]:
    """Build the projection once as a parametrised problem, so that a call only solves it."""
    action = cp.Variable(nu)
    proposal, normals, offsets = cp.Parameter(nu), cp.Parameter((m, nu)), cp.Parameter(m)
    constraints = [normals @ action >= offsets, action >= -1.0, action <= 1.0]
    problem = cp.Problem(cp.Minimize(sum_squares(action - proposal)), constraints)

    def solve(point: Array, rows: Array, bounds: Array) -> object:
        proposal.value, normals.value, offsets.value = point, rows, bounds
        problem.solve(solver=cp.CLARABEL)  # type: ignore[no-untyped-call]  # CVXPY's
        return action.value

    return solve


def _add_proxqp(batch: object, problem: _Problem, row: int) -> None:
    settings = batch.init_qp_in_place(2, 0, 4)  # type: ignore[attr-defined]  # no stubs
    settings.settings.eps_abs = _SOLVER_TOLERANCE
    settings.settings.check_duality_gap = True
    settings.settings.eps_duality_gap_abs = _SOLVER_TOLERANCE
    rows = np.vstack([problem.normals[row].double().numpy(), np.eye(2)])
    low = np.concatenate([problem.offsets[row].double().numpy(), -np.ones(2)])
    high = np.concatenate([np.full(2, 1e20), np.ones(2)])
    point = problem.action[row].double().numpy()
    settings.init(np.eye(2), -point, None, None, rows, low, high)


def _time_batch(call: Callable[[], object]) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return time_calls(call, calls=_TIMED).median
    finally:
        torch.set_num_threads(threads)

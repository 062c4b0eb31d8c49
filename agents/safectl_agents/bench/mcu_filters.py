"""Benchmarks of filters and of linear predictive control in C on emulated boards."""

import tempfile
from pathlib import Path

import cvxpy as cp
import numpy as np
import torch
from cvxpy.atoms.sum_squares import sum_squares
from numpy.typing import NDArray
from torch import nn

from safectl.export import (
    ChanceConstraint,
    Network,
    Program,
    chance_constrained_program,
    guarded_program,
    interpret,
    linear_mpc_program,
    policy_program,
)
from safectl.planners import LinearMPC
from safectl.safeguards import BarrierQP
from safectl.seed import torch_generator
from safectl.spec import Signal, Spec
from safectl_agents.bench.benchmark import NOTHING_DRAWN, Benchmark, Measurement
from safectl_agents.bench.programs import details_of, perceptron, spec_of
from safectl_envs.catalogue import find_world
from safectl_hardware.board import load_board
from safectl_hardware.image import build_image
from safectl_hardware.verify import verify_on_board

_MPC_BOARD = "mps2-an500"
_MPC_BOUNDS = {"position": 0.5, "velocity": 0.5, "angle": 0.2, "rate": 0.5}
_MPC_HORIZON = 20
_ROWS = 200
_STEPS = 800  # of the closed loop, 8 s
_REACH = 0.1  # of the bounds: from further away the force does not suffice
_TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
_CORRECTIONS = 3  # Newton steps on the critic
_TINYMPC = "TinyMPC 0.0.8, as known for this emulator"


def cart_pole_mpc() -> LinearMPC:
    """State the cart-pole of TinyMPC's examples: |u| <= 0.5, Q = diag(10, 1, 10, 1), R = 1."""
    A = [[1, 0.01, 0, 0], [0, 1, 0.039, 0], [0, 0, 1.002, 0.01], [0, 0, 0.458, 1.002]]
    signals = tuple(Signal(name, "1", -b, b) for name, b in _MPC_BOUNDS.items())
    return LinearMPC(
        Spec(signals, (Signal("force", "N", -0.5, 0.5),), 0.01),
        torch.tensor(A),
        torch.tensor([[0.0], [0.02], [0.0], [0.067]]),
        torch.diag(torch.tensor([10.0, 1.0, 10.0, 1.0])),
        torch.eye(1),
        _MPC_HORIZON,
    )


def lmpc_instructions() -> Measurement:
    """Count the instructions of a step, over states of which most saturate the force."""
    program = linear_mpc_program("lmpc", cart_pole_mpc())
    board = load_board(_MPC_BOARD)
    report = verify_on_board(program, observations=mpc_states(_ROWS), board=board)
    return Measurement(report.instructions_max, details=details_of(report))


def lmpc_image_bytes() -> Measurement:
    """Measure the whole image: controller, self-test, start-up and the session of the emulator."""
    program = linear_mpc_program("lmpc", cart_pole_mpc())
    with tempfile.TemporaryDirectory(prefix="safectl-mpc-") as name:
        image = build_image(program, Path(name) / "build", board=load_board(_MPC_BOARD))
        return Measurement(
            float(image.total_flash_bytes),
            details={
                "controller_bytes": image.flash_bytes,
                "board": image.board.name,
                "seed": NOTHING_DRAWN,
            },
        )


def lmpc_error() -> Measurement:
    """Compare first actions with Clarabel's optimum, and run the closed loop to the origin."""
    planner = cart_pole_mpc()
    program = linear_mpc_program("lmpc", planner)
    rows = mpc_states(_ROWS)
    ours = interpret(program, rows).action[:, 0]
    optimum = optimal_actions(planner, rows)
    state = np.float32(_REACH) * rows
    for _ in range(_STEPS):
        force = interpret(program, state).action
        after = state @ planner.A.numpy().T + force @ planner.B.numpy().T
        state = after.astype(np.float32)
    return Measurement(
        float(np.abs(ours - optimum).max()),
        details={
            "seed": 0,
            "states": _ROWS,
            "saturated": int((np.abs(optimum) > 0.4999).sum()),
            "closed_loop_steps": _STEPS,
            "largest_state_at_the_end": float(np.abs(state).max()),
        },
    )


def barrier_step_instructions() -> Measurement:
    """Count a 64-64 policy behind the barrier of a double integrator, and the policy alone."""
    world = find_world("DoubleIntegrator")
    guard = BarrierQP(world.barrier, world.dynamics, fallback=world.fallback)
    activations: list[nn.Module] = [nn.Tanh(), nn.Tanh(), nn.Identity()]
    network = Network(perceptron((6, 64, 64, 2), activations), gain=[4.0] * 2)
    program = guarded_program("barrier", world.spec, network, guard, state=range(4))
    generator = torch_generator(0, "barrier steps")
    state = world.initial(_ROWS, generator)
    state[:, :4] *= 1.25  # towards the edge, so that the barrier binds
    return _beside_policy(
        program, policy_program("policy", world.spec, network), world.observe(state).numpy()
    )


def acs_step_instructions() -> Measurement:
    """Count a 64-64 policy whose action is corrected along a 64-64 critic, and the policy alone."""
    activations: list[nn.Module] = [nn.Tanh(), nn.Tanh(), nn.Identity()]
    network = Network(perceptron((17, 64, 64, 6), activations))
    critic = perceptron((23, 64, 64, 1), activations)
    bound = perceptron((17, 16, 1), [nn.Tanh(), nn.Identity()])
    constraint = ChanceConstraint(
        critic, Network(bound, gain=[0.1], shift=[0.02]), iterations=_CORRECTIONS
    )
    program = chance_constrained_program("acs", spec_of(17, 6), network, constraint)
    rows = torch.randn(_ROWS, 17, generator=torch_generator(0, "critic steps")).numpy()
    return _beside_policy(program, policy_program("policy", spec_of(17, 6), network), rows)


def _beside_policy(program: Program, alone: Program, rows: NDArray[np.float32]) -> Measurement:
    steps = interpret(program, rows)
    report, bare = verify_on_board(program, observations=rows), verify_on_board(alone, rows=10)
    return Measurement(
        report.instructions_max,
        details=details_of(report)
        | {
            "policy_alone": bare.instructions_max,
            "statuses": np.bincount(steps.status, minlength=3).tolist(),
        },
    )


def mpc_states(count: int) -> NDArray[np.float32]:
    """Draw states of the cart-pole within their bounds."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1.0, 1.0, (count, len(_MPC_BOUNDS))) * list(_MPC_BOUNDS.values())
    return rows.astype(np.float32)


def optimal_actions(planner: LinearMPC, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Solve the problem with its states, one row after the other."""
    steps = planner.horizon
    start = cp.Parameter(4)
    x, u = cp.Variable((steps + 1, 4)), cp.Variable((steps, 1))
    A, B = planner.A.numpy(), planner.B.numpy()
    rules = [x[0] == start, u <= 0.5, u >= -0.5]
    rules += [x[k + 1] == A @ x[k] + B @ u[k] for k in range(steps)]
    roots = [torch.linalg.cholesky(cost).numpy().T for cost in (planner.Q, planner.terminal)]
    cost = sum_squares(u) + sum_squares(x[:steps] @ roots[0].T) + sum_squares(roots[1] @ x[steps])
    problem = cp.Problem(cp.Minimize(cost), rules)
    actions = []
    for row in rows:
        start.value = row.astype(np.float64)
        problem.solve(solver=cp.CLARABEL, **_TIGHT)  # type: ignore[no-untyped-call]  # CVXPY's
        assert u.value is not None, "the limits are never empty"
        actions.append(u.value[0, 0])
    return np.array(actions)


FILTERS = (
    Benchmark(
        name="mcu.lmpc_instructions",
        summary="instructions per step of linear MPC, nx 4, nu 1, N 20, on a Cortex-M7",
        unit="instructions",
        baseline=f"36,600 per ADMM iteration, 211,500 for six: {_TINYMPC}",
        target=100_000.0,
        measure=lmpc_instructions,
    ),
    Benchmark(
        name="mcu.lmpc_image_bytes",
        summary="whole flash image of linear MPC, nx 4, nu 1, N 20",
        unit="B",
        baseline=f"394,000 of {_TINYMPC}",
        target=20_000.0,
        measure=lmpc_image_bytes,
    ),
    Benchmark(
        name="mcu.lmpc_error",
        summary="largest error of the force of linear MPC in 200 states, limit 0.5 N",
        unit="N",
        baseline="Clarabel at 1e-10; TinyMPC stops at residuals of 1e-3",
        target=1e-4,
        measure=lmpc_error,
    ),
    Benchmark(
        name="mcu.barrier_step_instructions",
        summary="instructions of a 64-64 policy behind the barrier of a double integrator, M4F",
        unit="instructions",
        baseline="180,000: a step in 1 ms at 180 MHz",
        target=180_000.0,
        measure=barrier_step_instructions,
    ),
    Benchmark(
        name="mcu.acs_step_instructions",
        summary="instructions of a 64-64 policy corrected along a 64-64 critic, M4F",
        unit="instructions",
        baseline="360,000: a step in 2 ms at 180 MHz",
        target=360_000.0,
        measure=acs_step_instructions,
    ),
)

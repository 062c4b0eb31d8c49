"""Linear model predictive control in C: near the optimum, equal bits, stable in closed loop."""

import numpy as np
import pytest
import torch

from safectl.errors import RangeError
from safectl.export import interpret, linear_mpc_program, verify
from safectl.planners import LinearMPC
from safectl.spec import Signal, Spec

BOUNDS = {"x": 0.5, "v": 0.5, "angle": 0.2, "rate": 0.5}
SPEC = Spec(
    tuple(Signal(name, "1", -bound, bound) for name, bound in BOUNDS.items()),
    (Signal("force", "N", -0.5, 0.5),),
    0.01,
)
A = torch.tensor([[1, 0.01, 0, 0], [0, 1, 0.039, 0], [0, 0, 1.002, 0.01], [0, 0, 0.458, 1.002]])
B = torch.tensor([[0.0], [0.02], [0.0], [0.067]])
PLANNER = LinearMPC(SPEC, A, B, torch.diag(torch.tensor([10.0, 1, 10, 1])), torch.eye(1), 20)
FIRST_ACTION_TOLERANCE = 1e-4
"""Of 0.5 N, after 30 iterations, over random states of which nine in ten saturate the force."""


def observations(count):
    rng = np.random.default_rng(0)
    return (rng.uniform(-1.0, 1.0, (count, 4)) * list(BOUNDS.values())).astype(np.float32)


def exact(rows):
    return PLANNER.plan(torch.from_numpy(rows).double()).actions[:, 0]


def test_the_first_action_is_near_the_optimum_and_c_equals_the_interpreter():
    report = verify(
        linear_mpc_program("lmpc", PLANNER),
        reference=lambda rows: exact(rows.numpy()).float(),
        observations=observations(300),
        tolerance=FIRST_ACTION_TOLERANCE,
    )
    assert report.torch_difference > 0.0


def test_more_iterations_come_nearer():
    rows = observations(300)
    errors = [
        np.abs(
            interpret(linear_mpc_program("p", PLANNER, iterations=n), rows).action
            - exact(rows).numpy()
        ).max()
        for n in (10, 20, 40)
    ]
    assert errors[0] > 10.0 * errors[1] > 100.0 * errors[2]


def test_the_closed_loop_reaches_the_origin():
    program = linear_mpc_program("lmpc", PLANNER)
    state = np.float32(0.1) * observations(50)  # from further away the force does not suffice
    for _ in range(800):
        state = (state @ A.T.numpy() + interpret(program, state).action @ B.T.numpy()).astype("f4")
    assert np.abs(state).max() < 1e-3


def test_no_iteration_is_refused():
    with pytest.raises(RangeError, match="iterations"):
        linear_mpc_program("p", PLANNER, iterations=0)

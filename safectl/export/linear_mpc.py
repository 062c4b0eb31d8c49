"""Linear model predictive control as a program: one matrix for the state, one per iteration."""

import numpy as np
import torch

from safectl.export.assemble import limit_constants, start_program
from safectl.export.ops import Loop, Op
from safectl.export.program import ACTION, OBSERVATION, Program
from safectl.planners import LinearMPC

ITERATIONS = 30
"""Enough for an error of 1e-4 of the limits with a Hessian of condition 30."""


def linear_mpc_program(name: str, planner: LinearMPC, *, iterations: int = ITERATIONS) -> Program:
    """Export a planner that applies the first action of every plan; it certifies nothing.

    The penalty rho of the iterations is the geometric mean of the extreme eigenvalues of the
    Hessian, which is best for equality constraints (Ghadimi et al., "Optimal parameter selection
    for the alternating direction method of multipliers", 2015). The margin is `MARGIN_NONE`.

    Args:
        name: Lower-case C identifier.
        planner: The problem; its specification gives signals and limits.
        iterations: Of ADMM, in every step.

    Raises:
        RangeError: If there is no iteration.
    """
    hessian, slope = planner.hessian, planner.slope
    eigenvalues = torch.linalg.eigvalsh(hessian)
    rho = float((eigenvalues[0] * eigenvalues[-1]).sqrt())
    inverse = torch.linalg.inv(hessian + rho * torch.eye(len(hessian), dtype=torch.float64))
    spec, horizon = planner.spec, planner.horizon
    tracer = start_program(name, spec, None)
    centre = tracer.dense(OBSERVATION, (-inverse @ slope).numpy(), None, name="centre")
    constants = (
        tracer.constant("iteration", (rho * inverse).numpy()),
        tracer.constant("plan_low", np.tile(spec.action_low, horizon)),
        tracer.constant("plan_high", np.tile(spec.action_high, horizon)),
    )
    plan = tracer.op(Op("box_qp", (centre,), ("plan",), constants, detail=Loop(iterations)))
    first = tracer.slice(plan, 0, spec.nu, name="first")
    tracer.op(Op("clip", (first,), (ACTION,), limit_constants(tracer)))
    return tracer.finish()

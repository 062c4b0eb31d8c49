"""Closed loops of a compiled predictive controller and a simulated plant."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from safectl.export import Program, ngpc_program
from safectl.export.native import Native
from safectl.planners import Ngpc
from safectl.spec import Signal, Spec

Rows = npt.NDArray[np.float64]


class Run(NamedTuple):
    """One closed loop: targets, measured outputs (samples, p) and inputs (samples, m)."""

    target: Float[np.ndarray, "samples p"]
    output: Float[np.ndarray, "samples p"]
    input: Float[np.ndarray, "samples m"]


class Plant(NamedTuple):
    """A simulated plant: state at the start, step (state, input), what is measured of a state.

    `measure` returns outputs (1, p) and sensor signals (1, s).
    """

    start: Tensor
    step: Callable[[Tensor, Tensor, int], Tensor]
    measure: Callable[[Tensor], tuple[Tensor, Tensor]]


def controller_spec(controller: Ngpc, period: float) -> Spec:
    """Name the signals of a controller; units are those of its model."""
    problem = controller.problem
    p = problem.outputs
    names = [f"output {i}" for i in range(p)] + [f"sensor {i}" for i in range(problem.sensors)]
    rows = range(problem.reference_rows)
    names += [f"reference {row} {i}" for row in rows for i in range(p)]
    observation = tuple(Signal(name, "model", -math.inf, math.inf) for name in names)
    limits = zip(problem.low.tolist(), problem.high.tolist(), strict=True)
    action = tuple(Signal(f"input {i}", "model", *pair) for i, pair in enumerate(limits))
    return Spec(observation, action, period)


def controller_program(controller: Ngpc, period: float) -> Program:
    """Export a controller with the names of `controller_spec`."""
    return ngpc_program("controller", controller_spec(controller, period), controller)


def track(controller: Ngpc, plant: Plant, target: Rows, *, period: float) -> Run:
    """Run the compiled controller in closed loop with a plant.

    Args:
        controller: Problem and network.
        plant: What is controlled.
        target: y that the output should have at every sample, shape (samples, p). At sample n the
            controller sees row n, with preview the rows n + N1 to n + N2 instead.
        period: Time between two samples [s].
    """
    native, problem = Native(controller_program(controller, period)), controller.problem
    ahead = range(problem.first, problem.last + 1) if problem.has_preview else range(1)
    state, outputs, inputs = plant.start, [], []
    for n in range(len(target)):
        measured, sensors = (part[0].numpy() for part in plant.measure(state))
        wanted = [target[min(n + k, len(target) - 1)] for k in ahead]
        observation = np.concatenate([measured, sensors, *wanted]).astype(np.float32)
        action = native.step(observation).action.astype(np.float64)
        state = plant.step(state, torch.from_numpy(action)[None], n)
        outputs.append(measured)
        inputs.append(action)
    return Run(target, np.stack(outputs), np.stack(inputs))


class StepResponse(NamedTuple):
    """Quality of responses to a staircase of targets.

    Attributes:
        itae: Integral of time since the last step times |error| [unit s^2].
        rmse: Root mean square error.
        overshoot: Largest overshoot of any step, as a share of that step.
        steady: |error| at the last sample.
    """

    itae: float
    rmse: float
    overshoot: float
    steady: float


def step_response(run: Run, period: float) -> StepResponse:
    """Judge the first output."""
    target, output = run.target[:, 0], run.output[:, 0]
    error, starts = target - output, [0, *(np.flatnonzero(np.diff(target)) + 1).tolist()]
    stretches = list(zip(starts, [*starts[1:], len(target)], strict=True))
    since = np.concatenate([np.arange(end - start) for start, end in stretches])
    overshoot, before = 0.0, 0.0
    for start, end in stretches:
        rise = target[start] - before
        overshoot = max(overshoot, float(((output[start:end] - target[start]) / rise).max()))
        before = float(target[start])
    return StepResponse(
        itae=float((since * period * np.abs(error)).sum() * period),
        rmse=float(np.sqrt((error**2).mean())),
        overshoot=overshoot,
        steady=float(abs(error[-1])),
    )

"""Neural generalised predictive control as a program: torch, NumPy and C mean the same."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError, ShapeError
from safectl.export.kinds.ngpc_meaning import GATED
from safectl.export.ops import Horizon, Op
from safectl.export.program import ACTION, FAIL_SAFE, MARGIN, OBSERVATION, STATUS, Program, State
from safectl.planners import Layer, Ngpc, NgpcProblem
from safectl.spec import Spec

_MEMORY, _FOLLOWING, _START = "memory", "memory_next", "memory_start"


def ngpc_program(name: str, spec: Spec, controller: Ngpc) -> Program:
    """Export a controller with its network and what it remembers.

    The margin is the distance to the nearest input limit. Its claim is about the limits alone;
    nothing is promised about the outputs.

    Args:
        name: Lower-case C identifier.
        spec: Signals: measured y, sensors and reference; u with the limits of the problem.
        controller: Problem, network and fail-safe input.

    Raises:
        ShapeError: If the specification does not fit the problem.
        RangeError: If its limits differ from those of the problem, or if a layer has an activation
            that the operation does not have.
    """
    problem, model = controller.problem, controller.model
    sizes = (problem.observation_size, problem.inputs)
    if (spec.nx, spec.nu) != sizes:
        raise ShapeError("specification", expected=sizes, got=(spec.nx, spec.nu))
    for end, given, stated in (
        ("low", spec.action_low, problem.low),
        ("high", spec.action_high, problem.high),
    ):
        if tuple(given) != tuple(stated.tolist()):
            raise RangeError(f"{end} limits", value=given, expected=f"{stated.tolist()}")
    for key, weight in (("tracking", problem.tracking), ("effort", problem.effort)):
        if np.count_nonzero(weight - np.diag(np.diag(weight))):
            raise RangeError(key, value=weight.tolist(), expected="a diagonal matrix to export")
    constants = _cost_constants(problem)
    for index, layer in enumerate(model.layers):
        constants.update(_layer_constants(index, layer))
    names = tuple(constants)
    horizon = _horizon(problem, model.layers)
    fail_safe = controller.fail_safe.double().numpy()
    constants[FAIL_SAFE] = fail_safe
    constants[_START] = _start(horizon, fail_safe)
    outputs = (ACTION, MARGIN, STATUS, _FOLLOWING)
    op = Op("ngpc", (OBSERVATION, _MEMORY), outputs, names, detail=horizon)
    floats = {key: array.astype(np.float32) for key, array in constants.items()}
    return Program(name, spec, (op,), floats, {_MEMORY: State(_START, _FOLLOWING)})


def _horizon(problem: NgpcProblem, layers: Sequence[Layer]) -> Horizon:
    return Horizon(
        inputs=problem.inputs,
        outputs=problem.outputs,
        sensors=problem.sensors,
        input_lags=problem.input_lags,
        output_lags=problem.output_lags,
        first=problem.first,
        last=problem.last,
        control=problem.control,
        iterations=problem.iterations,
        has_curvature=problem.has_curvature,
        has_preview=problem.has_preview,
        is_box=problem.sharpness == 0.0,
        activations=tuple(
            layer.activation if layer.reset_bias is None else GATED for layer in layers
        ),
    )


def _cost_constants(problem: NgpcProblem) -> dict[str, npt.NDArray[np.float64]]:
    constants = {
        "action_low": problem.low,
        "action_high": problem.high,
        "tracking_root": np.sqrt(2.0 * np.diag(problem.tracking)),
        "effort_twice": 2.0 * np.diag(problem.effort),
        "settings": np.array([problem.disturbance_gain, problem.sharpness]),
    }
    if problem.sharpness > 0.0:
        half = 0.5 * problem.barrier_range
        constants["barrier_low"] = problem.barrier_centre - half
        constants["barrier_high"] = problem.barrier_centre + half
    return constants


def _layer_constants(index: int, layer: Layer) -> dict[str, npt.NDArray[np.float64]]:
    arrays = {"weight": layer.weight, "bias": layer.bias}
    if layer.reset_bias is not None:
        arrays["reset_bias"] = layer.reset_bias
    return {f"layer_{index}_{key}": array.double().numpy() for key, array in arrays.items()}


def _start(horizon: Horizon, fail_safe: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inputs, past, plan, *rest = horizon.memory_sizes
    samples = inputs // horizon.inputs
    parts = [
        np.tile(fail_safe, samples),
        np.zeros(past),
        np.tile(fail_safe, plan // len(fail_safe)),
    ]
    return np.concatenate([*parts, np.zeros(sum(rest))])

"""Benchmarks of predictive control in closed loop with synthetic plants, as compiled C."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from safectl.dynamics import MassSpringDamperParameters
from safectl.planners import ForwardModel, Ngpc
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.bench.mcu_ngpc import CLOCK_HZ, CYCLES_PER_INSTRUCTION
from safectl_agents.composites import paths
from safectl_agents.composites.pid import track_with_pid
from safectl_agents.composites.rigs import (
    SPRING_PERIOD,
    PlatformRig,
    exact_spring_model,
    spring_controller,
    spring_plant,
    train_spring_model,
)
from safectl_agents.composites.tracking import (
    Rows,
    Run,
    StepResponse,
    controller_program,
    step_response,
    track,
)
from safectl_agents.composites.training import TrainingOptions
from safectl_envs.soft_platform import HASEL, TENDON
from safectl_hardware.verify import verify_on_board

TENDON_RIG = PlatformRig(
    platform=TENDON,
    input_lags=3,
    output_lags=3,
    last=12,
    hidden=(8,),
    tracking=(1e-3, 1.0, 1.0),
    effort=1e-3,
)
HASEL_RIG = PlatformRig(
    platform=HASEL,
    input_lags=2,
    output_lags=2,
    last=3,
    hidden=(10, 5),
    tracking=(1.0, 1.0, 1.0),
    effort=1e-2,
)
SAMPLES = 2000
"""Of every path: 16 s."""

_RISE = 100  # samples from rest to the first point of a path, which are not judged
_TARGETS = (0.2, 0.4, 0.8)
_REACHABLE = (0.19, 0.38, 0.76)
"""Targets [m] for the hardening spring: 0.8 m would need 1.056 N of the 1 N there is."""

_GATED = TrainingOptions(
    hidden=(15,), gated=20, output_activation="none", epochs=150, batch=200
)  # 6 - GRU 20 - 15 - 2
_DENSE = TrainingOptions(
    hidden=(20,), activation="tanh", output_activation="none", epochs=150, batch=200
)


@dataclass(frozen=True, slots=True)
class SpringCase:
    """One variant of the mass-spring-damper: constants, pushed force [N], targets [m]."""

    parameters: MassSpringDamperParameters
    push: float = 0.0
    targets: tuple[float, float, float] = _TARGETS


CASES: Mapping[str, SpringCase] = {
    "nominal": SpringCase(MassSpringDamperParameters()),
    "disturbed": SpringCase(MassSpringDamperParameters(), push=-0.1),
    "stiffer": SpringCase(MassSpringDamperParameters(stiffness=1.2)),
    "hardening": SpringCase(MassSpringDamperParameters(hardening=0.5), targets=_REACHABLE),
}


def spring_models() -> dict[str, ForwardModel]:
    """Return the exact model and two that are learned from the linear plant."""
    return {
        "exact": exact_spring_model(),
        "gated": train_spring_model(_GATED),
        "dense": train_spring_model(_DENSE),
    }


def run_spring(controller: Ngpc, case: SpringCase) -> Run:
    """Follow the staircase of a case."""
    outputs = controller.problem.outputs
    plant = spring_plant(case.parameters, push=case.push, has_velocity=outputs == 2)
    return track(controller, plant, _staircase(case, outputs), period=SPRING_PERIOD)


def run_spring_pid(case: SpringCase) -> Run:
    """Follow the staircase of a case with the tuned PID."""
    plant = spring_plant(case.parameters, push=case.push)
    return track_with_pid(plant, _staircase(case, 1), period=SPRING_PERIOD)


class Responses(NamedTuple):
    """Step responses of the PID and of predictive control, by model and case."""

    pid: dict[str, StepResponse]
    predictive: dict[str, dict[str, StepResponse]]


def spring_responses() -> Responses:
    """Run every model on every case, with the box instead of the barrier."""
    pid = {name: step_response(run_spring_pid(case), SPRING_PERIOD) for name, case in CASES.items()}
    predictive = {}
    for model_name, model in spring_models().items():
        controller = spring_controller(model)
        predictive[model_name] = {
            name: step_response(run_spring(controller, case), SPRING_PERIOD)
            for name, case in CASES.items()
        }
    return Responses(pid, predictive)


def spring_itae() -> Measurement:
    """Compare the ITAE of the nominal staircase with that of the tuned PID."""
    responses = spring_responses()
    nominal = {model: cases["nominal"].itae for model, cases in responses.predictive.items()}
    value, pid = max(nominal.values()), responses.pid["nominal"].itae
    barrier = run_spring(spring_controller(exact_spring_model(), sharpness=1e-6), CASES["nominal"])
    details = {
        "seed": 0,
        "itae": nominal,
        "exact_with_barrier": step_response(barrier, SPRING_PERIOD)._asdict(),
        "all": _table(responses),
    }
    return Measurement(value, ours=value, theirs=pid, details=details)


def spring_overshoot() -> Measurement:
    """Find the largest overshoot of the nominal staircase among exact and learned models."""
    responses = spring_responses()
    nominal = {
        model: 100.0 * cases["nominal"].overshoot for model, cases in responses.predictive.items()
    }
    value, pid = max(nominal.values()), 100.0 * responses.pid["nominal"].overshoot
    return Measurement(
        value, theirs=pid, details={"seed": 0, "percent": nominal, "all": _table(responses)}
    )


def spring_steady_error() -> Measurement:
    """Find the largest steady error under a push, 20 % more stiffness and a hardening spring."""
    responses = spring_responses()
    errors = {
        f"{model} {name}": response.steady
        for model, cases in responses.predictive.items()
        for name, response in cases.items()
    }
    without = spring_controller(exact_spring_model(), disturbance_gain=0.0)
    naive = step_response(run_spring(without, CASES["disturbed"]), SPRING_PERIOD).steady
    details = {"seed": 0, "steady_m": errors, "exact_disturbed_without_innovation": naive}
    return Measurement(max(errors.values()), details=details)


def tendon_path_error() -> Measurement:
    """Follow the figure eight with the tendon platform: error in the two axes it can move."""
    return _path_error(TENDON_RIG, ("figure_eight", "circle", "chirp"), axes=(1, 2))


def hasel_path_error() -> Measurement:
    """Follow saddle and swirl with the HASEL platform: error in three axes."""
    return _path_error(HASEL_RIG, ("saddle", "swirl"), axes=(0, 1, 2))


def path_errors_mm(run: Run, rig: PlatformRig) -> Rows:
    """Return the position errors after the rise, (samples, 3) [mm]."""
    return np.asarray((run.output - run.target)[_RISE:] * rig.platform.unit_m * 1e3)


def run_path(rig: PlatformRig, controller: Ngpc, name: str) -> Run:
    """Follow a path of `composites.paths`."""
    target = paths.PATHS[name](SAMPLES) / rig.platform.unit_m
    return track(controller, rig.plant(), target, period=rig.platform.period)


def _path_error(rig: PlatformRig, names: tuple[str, ...], *, axes: tuple[int, ...]) -> Measurement:
    controller = rig.controller(rig.train())
    errors, details = [], {}
    for name in names:
        error = path_errors_mm(run_path(rig, controller, name), rig)
        chosen = np.linalg.norm(error[:, axes], axis=1)
        errors.append(float(np.sqrt(np.mean(chosen**2))))
        details[name] = {
            "rms_mm": errors[-1],
            "largest_mm": float(chosen.max()),
            "rms_three_axes_mm": float(np.sqrt(np.mean(np.sum(error**2, axis=1)))),
        }
    report = verify_on_board(controller_program(controller, rig.platform.period), rows=50)
    cost = {
        "flash_share_of_1_MB": report.flash_bytes / 1e6,
        "ram_bytes": report.ram_bytes + report.stack_bound_bytes,
        "instructions": report.instructions_max,
        "estimated_rate_hz": CLOCK_HZ / (report.instructions_max * CYCLES_PER_INSTRUCTION),
    }
    return Measurement(
        max(errors), details={"seed": 0, "paths": details, **cost, "plant": "synthetic"}
    )


def _staircase(case: SpringCase, outputs: int) -> Rows:
    target = np.zeros((1000, outputs))
    target[:, 0] = np.repeat(case.targets, (333, 333, 334))
    return target


def _table(responses: Responses) -> dict[str, dict[str, dict[str, float]]]:
    columns = {"pid": responses.pid, **responses.predictive}
    return {
        model: {name: response._asdict() for name, response in cases.items()}
        for model, cases in columns.items()
    }


TRACKING = (
    Benchmark(
        name="mcu.ngpc_spring_itae",
        summary="ITAE on a mass-spring-damper, worst of an exact, a GRU and a dense model",
        unit="m s^2",
        baseline="tuned PID in the same run; 0.0291 is known for an exact model with barrier",
        target=0.030,
        quick=False,
        measure=spring_itae,
    ),
    Benchmark(
        name="mcu.ngpc_spring_overshoot",
        summary="overshoot on a mass-spring-damper, worst of an exact, a GRU and a dense model",
        unit="%",
        baseline="tuned PID in the same run",
        target=0.5,
        quick=False,
        measure=spring_overshoot,
    ),
    Benchmark(
        name="mcu.ngpc_spring_steady_error",
        summary="steady error, worst of three models with push, stiffer and hardening spring",
        unit="m",
        baseline="0.0046 without the integrated innovation, as known for the push alone",
        target=5e-4,
        quick=False,
        measure=spring_steady_error,
    ),
    Benchmark(
        name="mcu.ngpc_tendon_path_mm",
        summary="RMS path error of a synthetic tendon platform, worst of eight, circle and chirp",
        unit="mm",
        baseline="2 mm on a real rig, Aguasvivas Manzano (2022); this plant is synthetic",
        target=2.0,
        quick=False,
        measure=tendon_path_error,
    ),
    Benchmark(
        name="mcu.ngpc_hasel_path_mm",
        summary="RMS path error of a synthetic HASEL platform, worst of saddle and swirl",
        unit="mm",
        baseline="1 mm in simulation, Aguasvivas Manzano (2022); this plant is synthetic",
        target=1.0,
        quick=False,
        measure=hasel_path_error,
    ),
)

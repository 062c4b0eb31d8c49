"""Benchmarks of predictive control on the emulated Cortex-M4F: what a control step costs."""

from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from safectl.export import Program
from safectl.planners import ForwardModel, Layer, Ngpc, NgpcProblem
from safectl.seed import numpy_generator, torch_generator
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.composites.tracking import controller_program
from safectl_hardware.verify import BoardReport, verify_on_board

CYCLES_PER_INSTRUCTION = 1.3
"""Estimate for a Cortex-M4F without flash wait states; the emulator counts instructions only."""
CLOCK_HZ = 180e6

_ROWS = 100
_OPTIMISATION = "-Os"  # the flash budget includes code; -O2 saves 2 % of the instructions


def hasel_report() -> BoardReport:
    """Measure the step of 36-10-5-3 with m 6, N2 3, Nu 1; C equals the interpreter or it raises."""
    layers = ((10, "relu"), (5, "relu"), (3, "tanh"))
    controller = _controller(m=6, p=3, sensors=18, lags=2, last=3, control=1, layers=layers)
    return _report(controller_program(controller, 0.008))


def hasel_instructions() -> Measurement:
    """Count the instructions of a control step of the HASEL size, and of the others beside."""
    report = hasel_report()
    tendon = _controller(
        m=2, p=3, sensors=11, lags=3, last=1, control=1, layers=((8, "relu"), (3, "tanh"))
    )
    spring = _controller(
        m=1, p=2, sensors=0, lags=2, last=1, control=1,
        layers=((20, "gated"), (15, "relu"), (2, "none")),
    )  # fmt: skip
    linear = _controller(m=1, p=1, sensors=0, lags=2, last=20, control=3, layers=((1, "none"),))
    others = {"tendon": tendon, "spring_gru": spring, "spring_exact_n20": linear}
    beside = {
        name: asdict(_report(controller_program(other, 0.02))) for name, other in others.items()
    }
    details = {**asdict(report), "seed": 0, "compiler": _OPTIMISATION, "beside": beside}
    return Measurement(report.instructions_max, details=details)


def hasel_flash() -> Measurement:
    """Measure code, weights and constants of that controller."""
    return Measurement(
        float(hasel_report().flash_bytes), details={"seed": 0, "compiler": _OPTIMISATION}
    )


def hasel_ram() -> Measurement:
    """Measure state, working memory and worst-case stack of that controller."""
    report = hasel_report()
    total = report.ram_bytes + report.stack_bound_bytes
    details = {"state_and_work": report.ram_bytes, "stack_bound": report.stack_bound_bytes}
    return Measurement(float(total), details={"seed": 0, **details})


def hasel_rate() -> Measurement:
    """Estimate the rate of that controller at 180 MHz."""
    instructions = hasel_report().instructions_max
    rate = CLOCK_HZ / (instructions * CYCLES_PER_INSTRUCTION)
    details = {"instructions": instructions, "cycles_per_instruction": CYCLES_PER_INSTRUCTION}
    return Measurement(rate, details={"seed": 0, **details})


def _report(program: Program) -> BoardReport:
    drawn = numpy_generator(0, "ngpc observations").uniform(-1.0, 1.0, (_ROWS, program.spec.nx))
    return verify_on_board(
        program, observations=drawn.astype(np.float32), optimisation=_OPTIMISATION
    )


def _controller(
    *,
    m: int,
    p: int,
    sensors: int,
    lags: int,
    last: int,
    control: int,
    layers: tuple[tuple[int, str], ...],
) -> Ngpc:
    """Return a controller with random weights and limits of 0.5."""
    generator = torch_generator(0, "ngpc weights")

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, model = lags * (m + p) + sensors, []
    for outputs, activation in layers:
        rows = 3 * outputs if activation == "gated" else outputs
        weight, bias = draw(rows, inputs) / inputs**0.5, 0.1 * draw(rows)
        if activation == "gated":
            model.append(Layer(weight, bias, reset_bias=0.1 * draw(outputs)))
        else:
            model.append(Layer(weight, bias, activation))
        inputs = outputs
    problem = NgpcProblem(
        outputs=p,
        sensors=sensors,
        input_lags=lags,
        output_lags=lags,
        last=last,
        control=control,
        tracking=np.ones(p),
        effort=np.full(m, 1e-2),
        low=np.full(m, -0.5),
        high=np.full(m, 0.5),
    )
    return Ngpc(problem, ForwardModel(tuple(model)), torch.zeros(m, dtype=torch.float64))


NGPC = (
    Benchmark(
        name="mcu.ngpc_hasel_instructions",
        summary="instructions per predictive control step, 6 inputs, 36-10-5-3, 3 samples ahead",
        unit="instructions",
        baseline="375,228 with heap of the published code, as known for this emulator",
        target=32_000.0,
        measure=hasel_instructions,
    ),
    Benchmark(
        name="mcu.ngpc_hasel_flash_bytes",
        summary="flash of that controller with its weights",
        unit="B",
        baseline="6 kB",
        target=6000.0,
        measure=hasel_flash,
    ),
    Benchmark(
        name="mcu.ngpc_hasel_ram_bytes",
        summary="RAM of that controller: state, working memory and worst-case stack",
        unit="B",
        baseline="2 kB; the published code keeps 1.9 kB on the heap between steps",
        target=2000.0,
        measure=hasel_ram,
    ),
    Benchmark(
        name="mcu.ngpc_hasel_rate_hz",
        summary="rate of that controller at 180 MHz, estimated at 1.3 cycles per instruction",
        unit="Hz",
        baseline="1 kHz; at least 120 Hz in Aguasvivas Manzano (2022)",
        target=1000.0,
        better="higher",
        measure=hasel_rate,
    ),
)

"""Benchmarks of generated C on the emulated Cortex-M4."""

import numpy as np
import torch
from torch import nn

from safectl.export import (
    AffineSignal,
    Network,
    Program,
    guarded_policy_program,
    interpret,
    policy_program,
)
from safectl.seed import torch_generator
from safectl.spec import Signal, Spec
from safectl_agents.bench.benchmark import Measurement
from safectl_hardware.verify import BoardReport, verify_on_board


def mlp_instructions() -> Measurement:
    """Count the instructions of one inference of the plain perceptron 36-10-5-3."""
    sizes = (36, 10, 5, 3)
    layers = perceptron(sizes, [nn.ReLU(), nn.ReLU(), nn.Tanh()])
    report = verify_on_board(policy_program("mlp", spec_of(36, 3), Network(layers)), rows=100)
    return Measurement(report.instructions_max, details=details_of(report))


def guarded_step_instructions() -> Measurement:
    """Count the instructions of a guarded 64-64 policy: two networks and a projection."""
    report = verify_on_board(guarded_program(), rows=100)
    return Measurement(report.instructions_max, details=details_of(report))


def export_difference() -> Measurement:
    """Compare the interpreter with torch on 1,000 observations, and C with the interpreter."""
    layers = perceptron((17, 64, 64, 6), [nn.Tanh(), nn.Tanh(), nn.Identity()])
    program = policy_program("policy", spec_of(17, 6), Network(layers))
    generator = torch_generator(0, "export difference")
    rows = torch.randn(1000, 17, generator=generator)
    report = verify_on_board(program, observations=rows.numpy())
    from_torch = layers(rows).detach().clamp(-1.0, 1.0).numpy()
    ours = interpret(program, rows.numpy()).action
    return Measurement(float(np.abs(ours - from_torch).max()), details=details_of(report))


def guarded_program(nx: int = 17, nu: int = 6, hidden: int = 64) -> Program:
    """Build a policy nx-hidden-hidden-nu behind a learned signal, with random weights."""
    activations: list[nn.Module] = [nn.Tanh(), nn.Tanh(), nn.Identity()]
    policy = perceptron((nx, hidden, hidden, nu), activations)
    signal = perceptron((nx, hidden, hidden, 1 + nu), activations)
    constraint = AffineSignal(Network(signal), limit=0.05, margin=0.01)
    return guarded_policy_program("guarded", spec_of(nx, nu), Network(policy), constraint)


def perceptron(sizes: tuple[int, ...], activations: list[nn.Module]) -> nn.Sequential:
    """Build a perceptron with random weights, the same ones every time."""
    generator = torch_generator(0, "benchmark weights")
    layers: list[nn.Module] = []
    for inputs, outputs, activation in zip(sizes[:-1], sizes[1:], activations, strict=True):
        layer = nn.Linear(inputs, outputs)
        for parameter in layer.parameters():
            drawn = torch.rand(parameter.shape, generator=generator)
            parameter.data.copy_((2.0 * drawn - 1.0) / inputs**0.5)
        layers += [layer, activation]
    return nn.Sequential(*layers)


def spec_of(nx: int, nu: int) -> Spec:
    """Return signals without meaning, actions within one."""
    return Spec(
        observation=tuple(Signal(f"x{i}", "1", -10.0, 10.0) for i in range(nx)),
        action=tuple(Signal(f"u{i}", "1", -1.0, 1.0) for i in range(nu)),
        period=0.05,
    )


def details_of(report: BoardReport) -> dict[str, object]:
    """Return what a build and a run on a board found, as JSON values."""
    return {
        "seed": 0,
        "board": report.board,
        "compiler": f"arm-none-eabi-gcc {report.optimisation}",
        "rows_equal_bit_for_bit": report.rows,
        "flash_bytes": report.flash_bytes,
        "ram_bytes": report.ram_bytes,
        "stack_bytes": report.stack_bound_bytes,
        "instructions_mean": report.instructions_mean,
    }

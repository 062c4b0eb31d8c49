"""Benchmarks of networks in three number formats on the emulated Cortex-M4F."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from safectl.export import Program, policy_program, quantise, torch_network
from safectl.export.assemble import Network
from safectl.seed import torch_generator
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.bench.programs import details_of, perceptron, spec_of
from safectl_agents.bench.random_networks import float_bound, random_network
from safectl_hardware.board import load_board
from safectl_hardware.selftests import run_selftests
from safectl_hardware.verify import verify_on_board

_NETWORKS = 200
_CALIBRATION_ROWS = 200
_ROWS = 20  # each takes the same instructions but for the branches of clamps
_BOARDS = (None, "mps2-an386", "riscv-virt")

IMAGE = (1, 16, 16)
"""Channels, height and width that the image network sees."""


def instructions(build: Callable[[], Program], bits: int | None) -> Measurement:
    """Count the instructions of one inference; every row equals the interpreter bit for bit."""
    program = build()
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((_CALIBRATION_ROWS, program.spec.nx)).astype(np.float32)
    chosen = program if bits is None else quantise(program, rows, bits=bits)
    report = verify_on_board(chosen, observations=rows[:_ROWS])
    return Measurement(
        report.instructions_max,
        details=details_of(report) | {"multiply_adds": chosen.multiply_adds()},
    )


def random_networks() -> Measurement:
    """Compare random networks with torch, their bound and C; the value is the number that agree."""
    networks = [random_network(seed) for seed in range(_NETWORKS)]
    agree = [
        network.float_difference <= float_bound() and max(network.bound_shares) <= 1.0
        for network in networks
    ]
    with tempfile.TemporaryDirectory(prefix="safectl-random-") as folder:
        for form in range(3):
            programs = [network.programs[form] for network in networks]
            for board in _BOARDS:
                target = Path(folder) / f"{board}-{form}"
                run_selftests(programs, target, board=None if board is None else load_board(board))
    return Measurement(
        float(sum(agree)),
        details={
            "seeds": f"0 to {_NETWORKS - 1}",
            "formats": ["float32", "int8", "int16"],
            "machines": ["host with sanitizers", *_BOARDS[1:]],
            "largest_float_difference": max(network.float_difference for network in networks),
            "largest_share_of_bound": max(max(network.bound_shares) for network in networks),
        },
    )


def mlp_layers() -> nn.Sequential:
    """Return 36-10-5-3 with relu, relu and tanh."""
    return perceptron((36, 10, 5, 3), [nn.ReLU(), nn.ReLU(), nn.Tanh()])


def mlp() -> Program:
    """Build the perceptron 36-10-5-3 as a policy."""
    return policy_program("mlp", spec_of(36, 3), Network(mlp_layers()))


def policy_layers() -> nn.Sequential:
    """Return 17-64-64-6 with tanh."""
    return perceptron((17, 64, 64, 6), [nn.Tanh(), nn.Tanh(), nn.Identity()])


def policy() -> Program:
    """Build the policy 17-64-64-6."""
    return policy_program("policy", spec_of(17, 6), Network(policy_layers()))


def image_layers() -> nn.Sequential:
    """Return two convolutions of 3 x 3 with 8 and 16 channels for 16 x 16 values, 10 out."""
    layers = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 10)),
    )
    generator = torch_generator(0, "benchmark weights")
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=1.0 / parameter[0].numel() ** 0.5, generator=generator)
    return layers


def convolution() -> Program:
    """Build the image network."""
    return torch_network("conv", image_layers(), IMAGE)


def _count(
    name: str, summary: str, target: float, build: Callable[[], Program], *, bits: int | None = None
) -> Benchmark:
    return Benchmark(
        name=f"mcu.{name}_instructions",
        summary=f"instructions of one inference of {summary} on a Cortex-M4F",
        unit="instructions",
        baseline=_BASELINES[build],
        target=target,
        measure=partial(instructions, build, bits),
    )


_BASELINES: dict[Callable[[], Program], str] = {
    mlp: "nn4mc 0.3.0 takes 3,605 and emlearn 0.23.2 3,673 in float, same emulator",
    policy: "regression bound: 5 instructions per multiply-add, 2.5 in int8, 3.6 in int16",
    convolution: "regression bound: 6 instructions per multiply-add, 4.2 in int8, 4.5 in int16",
}

NETWORKS = (
    _count("mlp_int8", "36-10-5-3 in 8 bits", 2000.0, mlp, bits=8),
    _count("mlp_int16", "36-10-5-3 in 16 bits", 2500.0, mlp, bits=16),
    _count("policy_64_64_float", "17-64-64-6 in float", 27_840.0, policy),
    _count("policy_64_64_int8", "17-64-64-6 in 8 bits", 13_920.0, policy, bits=8),
    _count("policy_64_64_int16", "17-64-64-6 in 16 bits", 20_000.0, policy, bits=16),
    _count("conv_float", "a small image network in float", 568_320.0, convolution),
    _count("conv_int8", "a small image network in 8 bits", 400_000.0, convolution, bits=8),
    _count("conv_int16", "a small image network in 16 bits", 430_000.0, convolution, bits=16),
    Benchmark(
        name="mcu.random_networks",
        summary="random networks of 200, in three formats, that agree; C equal bit for bit",
        unit="networks",
        baseline="torch within 1e-5, the float program within the stated bound",
        target=float(_NETWORKS),
        better="higher",
        quick=False,
        measure=random_networks,
    ),
)

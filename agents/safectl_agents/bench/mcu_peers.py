"""Benchmarks against other code generators: the same network in the same emulator.

Their C is compiled as a user would, with contraction of products and sums.
"""

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from safectl.errors import VerificationError
from safectl.export import Program, interpret, quantise
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.bench.mcu_networks import (
    IMAGE,
    convolution,
    image_layers,
    mlp,
    mlp_layers,
    policy,
    policy_layers,
)
from safectl_agents.bench.onnx_integers import write_integer_onnx
from safectl_agents.bench.peer_code import PeerSources, empty_peer, install_peer, one_file, run_peer
from safectl_hardware.verify import verify_on_board

EMLEARN = "emlearn==0.23.2"
EMX = ("emx-onnx-cgen==1.4.0", "emx-regex-cgen==0.2.0")
_GENERATE_TIMEOUT_S = 60.0
_ROWS = 20
_CALIBRATION_ROWS = 200
_TOLERANCE = 1e-4  # emlearn prints weights with six decimals
_SHARE = 0.05  # of the largest output, between 8 bits and float

_GENERATE_EMLEARN = """
import sys
import numpy
from emlearn.net import c_generate_net_loadable
data = numpy.load(sys.argv[1])
count = len(data.files) // 2
names = sys.argv[3].split(",")
weights, biases = ([data[f"{kind}{i}"] for i in range(count)] for kind in "wb")
open(sys.argv[2], "w").write(c_generate_net_loadable(names, weights, biases, "net"))
"""

_RUN_EMLEARN = """
#include "net.h"
void peer_start(void) {}
void peer_run(const float *x, float *y) { (void)net_regress(x, SF_NX, y, SF_NU); }
"""

_RUN_EMX = """
#include "net.c"
void peer_start(void) {}
void peer_run(const float *x, float *y) { net((const void *)x, (void *)y); }
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A network as ours and as the layers that others import, with the shape of its input."""

    summary: str
    program: Callable[[], Program]
    layers: Callable[[], nn.Sequential]
    shape: tuple[int, ...]


Generator = Callable[[Subject, Program, Path], PeerSources]
"""Writes a network's C, from the layers or from our program, into a folder."""

MLP = Subject("36-10-5-3", mlp, mlp_layers, (36,))
POLICY = Subject("17-64-64-6", policy, policy_layers, (17,))
CONVOLUTION = Subject("a small image network", convolution, image_layers, IMAGE)


def ratio(subject: Subject, generate: Generator, *, bits: int | None = None) -> Measurement:
    """Count one network as a peer's C and as ours, and require that both compute the same."""
    program = subject.program()
    data = calibration(program)
    rows, chosen = data[:_ROWS], program if bits is None else quantise(program, data, bits=bits)
    ours = verify_on_board(chosen, observations=rows)
    theirs = run_peer(partial(generate, subject), program, rows)
    limited = np.clip(theirs.outputs, program.spec.action_low, program.spec.action_high)
    exact = interpret(program, rows).action
    difference = float(np.abs(limited - exact).max())
    allowed = _TOLERANCE if bits is None else _SHARE * float(np.abs(exact).max())
    if not difference <= allowed:
        raise VerificationError(
            f"the peer and program {program.name} differ by {difference:.3g}, allowed "
            f"{allowed:g}: not the same network"
        )
    frame = run_peer(empty_peer, program, rows[:1]).image_bytes
    slowest = max(theirs.instructions)
    return Measurement(
        slowest / ours.instructions_max,
        ours=ours.instructions_max,
        theirs=slowest,
        details={
            "seed": 0,
            "rows": _ROWS,
            "board": ours.board,
            "multiply_adds": program.multiply_adds(),
            "largest_difference": difference,
            "ours_from_float": float(np.abs(interpret(chosen, rows).action - exact).max()),
            "flash_bytes": {"ours": ours.flash_bytes, "theirs": theirs.image_bytes - frame},
            "ram_and_stack_bytes": {
                "ours": ours.ram_bytes + ours.stack_used_bytes,
                "theirs": theirs.ram_bytes,
            },
        },
    )


def calibration(program: Program) -> NDArray[np.float32]:
    """Draw the observations that integers are fitted to; the first ones are compared."""
    drawn = np.random.default_rng(0).standard_normal((_CALIBRATION_ROWS, program.spec.nx))
    return drawn.astype(np.float32)


def emlearn_code(subject: Subject, program: Program, folder: Path) -> PeerSources:
    """Let emlearn write the dense layers of a program."""
    del subject
    package = install_peer(EMLEARN)
    layers = [op for op in program.ops if op.kind == "dense"]
    arrays = {}
    for index, op in enumerate(layers):
        weight, bias = (program.constants[name] for name in op.constants)
        arrays[f"w{index}"], arrays[f"b{index}"] = weight.T, bias
    np.savez(folder / "weights.npz", allow_pickle=False, **arrays)
    names = ["identity" if op.activation == "none" else op.activation for op in layers]
    _generate(package, folder, ["-c", _GENERATE_EMLEARN, "weights.npz", "net.h", ",".join(names)])
    return one_file(folder, _RUN_EMLEARN, package / "emlearn")


def emx_code(subject: Subject, program: Program, folder: Path) -> PeerSources:
    """Let emx-onnx-cgen write a network that torch stored as ONNX."""
    del program
    with warnings.catch_warnings():  # the exporter that needs no further package is deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        zeros = torch.zeros(1, *subject.shape)
        torch.onnx.export(subject.layers(), (zeros,), folder / "net.onnx", dynamo=False)
    return _emx_code(folder)


def emx_integer_code(subject: Subject, program: Program, folder: Path) -> PeerSources:
    """Let it write the same network with 8 bits, calibrated on the same observations."""
    rows = torch.from_numpy(calibration(program)).reshape(-1, *subject.shape)
    write_integer_onnx(subject.layers(), rows, folder / "net.onnx")
    return _emx_code(folder)


def _emx_code(folder: Path) -> PeerSources:
    """Compile `net.onnx` without a heap."""
    package = install_peer(*EMX)
    command = ["-m", "emx_onnx_cgen", "compile", "--large-temp-threshold", "0"]
    _generate(package, folder, [*command, "--model-name", "net", "net.onnx", "net.c"])
    return one_file(folder, _RUN_EMX)


def _generate(package: Path, folder: Path, arguments: list[str]) -> None:
    """Run a generator in a folder, with its package and those of this environment."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=_GENERATE_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise VerificationError(f"{package.name} failed: {done.stderr.strip()}")


def _ratio(
    name: str,
    subject: Subject,
    target: float,
    *,
    peer: str,
    generate: Generator,
    bits: int | None = None,
) -> Benchmark:
    form = "" if bits is None else f" in {bits} bits"
    return Benchmark(
        name=f"mcu.peer_{name}_ratio",
        summary=f"instructions of {subject.summary}{form} as {peer}'s C over ours, M4F",
        unit="x",
        baseline=f"{peer}, same weights, same emulator, -O2, in the same run",
        target=target,
        better="higher",
        measure=partial(ratio, subject, generate, bits=bits),
    )


_emlearn = partial(_ratio, peer="emlearn 0.23.2", generate=emlearn_code)
_emx = partial(_ratio, peer="emx-onnx-cgen 1.4.0", generate=emx_code)
_emx_8 = partial(_ratio, peer="emx-onnx-cgen 1.4.0", generate=emx_integer_code, bits=8)

PEERS = (
    _emlearn("emlearn", MLP, 1.4),
    _emlearn("emlearn_policy", POLICY, 1.0),
    _emx("emx", MLP, 1.0),
    _emx("emx_policy", POLICY, 1.0),
    _emx("emx_conv", CONVOLUTION, 1.0),
    _emx_8("emx_int8", MLP, 1.0),
    _emx_8("emx_policy_int8", POLICY, 1.0),
    _emx_8("emx_conv_int8", CONVOLUTION, 1.0),
)

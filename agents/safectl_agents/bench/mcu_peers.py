"""Benchmarks against other code generators: the same network in the same emulator.

emlearn is installed beside the checkout, not into the environment: it is no dependency. Its C is
compiled as a user would, with contraction of products and sums, and run in place of a controller.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safectl.errors import VerificationError
from safectl.export import Program, interpret
from safectl.export.toolchain import run_tool
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.bench.mcu_networks import mlp, policy
from safectl_hardware.board import load_board
from safectl_hardware.emulator import Emulator
from safectl_hardware.image import Image
from safectl_hardware.linker import compile_for, link, section_sizes
from safectl_hardware.verify import verify_on_board

EMLEARN = "emlearn==0.23.2"
_FOLDER = Path(__file__).parents[3] / "build" / "peers"
_INSTALL_TIMEOUT_S = 300.0
_GENERATE_TIMEOUT_S = 60.0
_ROWS = 20
_TOLERANCE = 1e-4  # emlearn prints weights with six decimals
_STACK_BYTES = 2048
_PAINTED_WORDS = 256

_GENERATE = """
import sys
import numpy
from emlearn.net import c_generate_net_loadable
data = numpy.load(sys.argv[1])
count = len(data.files) // 2
names = sys.argv[3].split(",")
weights, biases = ([data[f"{kind}{i}"] for i in range(count)] for kind in "wb")
open(sys.argv[2], "w").write(c_generate_net_loadable(names, weights, biases, "net"))
"""

_HEADER = """
#include "sf_core.h"
typedef struct { uint32_t unused; } peer_state;
void peer_init(peer_state *state);
int peer_selftest(peer_state *state);
sf_status peer_step(peer_state *, const float *, float *, sf_certificate *);
"""

_SHIM = """
#include "peer.h"
#include "net.h"
void peer_init(peer_state *state) { state->unused = 0u; }
int peer_selftest(peer_state *state) { (void)state; return 0; }
sf_status peer_step(peer_state *state, const float *x, float *y, sf_certificate *certificate) {
    (void)state;
    certificate->status = net_regress(x, SF_NX, y, SF_NU) == EmlOk ? SF_KEPT : SF_FALLBACK;
    certificate->margin = SF_MARGIN_NONE;
    return certificate->status;
}
"""


@dataclass(frozen=True, slots=True)
class PeerRun:
    """Instructions per inference, code and constants in flash, static RAM, and the outputs."""

    instructions: float
    flash_bytes: int
    ram_bytes: int
    outputs: NDArray[np.float32]


def emlearn_ratio(build: Callable[[], Program]) -> Measurement:
    """Count one network as emlearn's C and as ours, and require that both compute the same."""
    program = build()
    rows = np.random.default_rng(0).standard_normal((_ROWS, program.spec.nx)).astype(np.float32)
    ours = verify_on_board(program, observations=rows)
    theirs = run_emlearn(program, rows)
    limited = np.clip(theirs.outputs, program.spec.action_low, program.spec.action_high)
    difference = float(np.abs(limited - interpret(program, rows).action).max())
    if not difference <= _TOLERANCE:
        raise VerificationError(
            f"emlearn and program {program.name} differ by {difference:.3g}, allowed "
            f"{_TOLERANCE:g}: not the same network"
        )
    return Measurement(
        theirs.instructions / ours.instructions_max,
        ours=ours.instructions_max,
        theirs=theirs.instructions,
        details={
            "seed": 0,
            "rows": _ROWS,
            "board": ours.board,
            "multiply_adds": program.multiply_adds(),
            "largest_difference": difference,
            "flash_bytes": {"ours": ours.flash_bytes, "theirs_without_libm": theirs.flash_bytes},
            "ram_bytes": {"ours": ours.ram_bytes, "theirs": theirs.ram_bytes},
            "nn4mc": "3,605 instructions for 36-10-5-3, repaired by hand, as known; not run here",
        },
    )


def run_emlearn(program: Program, rows: NDArray[np.float32]) -> PeerRun:
    """Generate, build and run the dense layers of a program with emlearn.

    Raises:
        VerificationError: If emlearn cannot be installed, or its code does not build or run.
    """
    package = _install()
    board = load_board()
    with tempfile.TemporaryDirectory(prefix="safectl-peer-") as name:
        folder = Path(name)
        _generate(program, package, folder)
        (folder / "peer.h").write_text(_HEADER, encoding="utf-8")
        (folder / "peer.c").write_text(_SHIM, encoding="utf-8")
        runtime, ports = files("safectl.export") / "runtime", files("safectl_hardware") / "ports"
        with as_file(runtime) as core, as_file(ports) as own:
            macros = [f"-DSF_NX={program.spec.nx}", f"-DSF_NU={program.spec.nu}"]
            includes = [f"-I{path}" for path in (folder, package / "emlearn", core, own)]
            options = ["-std=gnu99", "-O2", "-ffunction-sections", "-fdata-sections", "-c"]
            compile_for(
                board,
                [*options, *macros, *includes, folder / "peer.c", "-o", folder / "peer.o"],
                purpose="compiling emlearn's network",
            )
            names = {"STATE": "peer_state", "INIT": "peer_init", "STEP": "peer_step"}
            macros += [f"-DSF_{key}={value}" for key, value in names.items()]
            macros += ["-DSF_SELFTEST=peer_selftest", '-DSF_HEADER="peer.h"']
            link(
                board,
                [own / "semihost" / file for file in ("session.c", "semihost.c")],
                [folder / "peer.o", Path("-lm")],  # the linker wants the library last
                folder / "image.elf",
                options=[*macros, f"-DSF_PAINTED_WORDS={_PAINTED_WORDS}", *includes],
                stack_bytes=_STACK_BYTES,
            )
        text, data, bss = section_sizes(board, folder / "peer.o")
        image = Image(program, board, folder / "image.elf", text + data, data + bss, 0)
        with Emulator(image) as emulator:
            steps = [emulator.step(row) for row in rows]
    counts = max(step.instructions for step in steps)
    return PeerRun(counts, text + data, data + bss, np.stack([step.action for step in steps]))


def _install() -> Path:
    """Install emlearn once, without its dependencies: only its C and its generator are used."""
    folder = _FOLDER / EMLEARN.replace("==", "-")
    if not (folder / "emlearn" / "eml_net.h").is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        run_tool(
            [*command, "--target", folder, EMLEARN],
            purpose=f"installing {EMLEARN}",
            timeout_s=_INSTALL_TIMEOUT_S,
        )
    return folder


def _generate(program: Program, package: Path, folder: Path) -> None:
    """Let emlearn write `net.h` for the dense layers of a program."""
    layers = [op for op in program.ops if op.kind == "dense"]
    arrays = {}
    for index, op in enumerate(layers):
        weight, bias = (program.constants[name] for name in op.constants)
        arrays[f"w{index}"], arrays[f"b{index}"] = weight.T, bias
    np.savez(folder / "weights.npz", allow_pickle=False, **arrays)
    names = ["identity" if op.activation == "none" else op.activation for op in layers]
    done = subprocess.run(
        [sys.executable, "-c", _GENERATE, "weights.npz", "net.h", ",".join(names)],
        cwd=folder,
        env={"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=_GENERATE_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise VerificationError(f"emlearn failed: {done.stderr.strip()}")


def _ratio(name: str, summary: str, target: float, build: Callable[[], Program]) -> Benchmark:
    return Benchmark(
        name=f"mcu.peer_{name}",
        summary=f"instructions of one inference of {summary} as emlearn's C over ours, M4F",
        unit="x",
        baseline="emlearn 0.23.2, same weights, same emulator, -O2, in the same run",
        target=target,
        better="higher",
        quick=True,
        measure=partial(emlearn_ratio, build),
    )


PEERS = (
    _ratio("emlearn_ratio", "36-10-5-3", 1.4, mlp),
    _ratio("emlearn_policy_ratio", "17-64-64-6", 1.0, policy),
)

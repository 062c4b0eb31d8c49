"""Linear predictive control beside TinyMPC's generated code: same states, same emulated Cortex-M7.

TinyMPC's source package is compiled as it is. Its own generator writes the problem's data on the
host; its solver, with Eigen, then runs on the board.
"""

import sys
import tarfile
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from safectl.export import Program, interpret, linear_mpc_program, torch_network
from safectl.export.toolchain import find_tool, run_tool
from safectl.planners import LinearMPC
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.bench.mcu_filters import cart_pole_mpc, mpc_states, optimal_actions
from safectl_agents.bench.peer_code import PEERS_FOLDER, PeerSources, run_peer
from safectl_hardware.board import load_board
from safectl_hardware.image import build_image
from safectl_hardware.verify import verify_on_board

TINYMPC = "tinympc-0.0.8"
_BOARD = "mps2-an500"
_STARTS, _STEPS = 8, 40
_REACH = 0.1  # of the bounds: from further away the force does not suffice
_ITERATIONS = 100
_HEAP_BYTES = 65536
_TIMEOUT_S = 600.0

_GENERATE = """
#include <tinympc/tiny_api.hpp>
#include <tinympc/codegen.hpp>
int main(int, char **argv) {{
    TinySolver *solver;
    tinyMatrix A(4, 4), B(4, 1), Q = tinyMatrix::Zero(4, 4), R(1, 1);
    A << {A};
    B << {B};
    Q.diagonal() << {Q};
    R << {R};
    const tinyMatrix state = tinyMatrix::Constant(4, {N}, 1e17);
    const tinyMatrix force = tinyMatrix::Constant(1, {N} - 1, {limit});
    tiny_setup(&solver, A, B, Q, R, 1.0, 4, 1, {N}, -state, state, -force, force, 0);
    solver->cache->C1 = tinyMatrix::Zero(4, 4); /* unused here; it writes 16 entries of 1 else */
    tiny_update_settings(solver->settings, 1e-3, 1e-3, {iterations}, 1, 0, 1);
    return tiny_codegen(solver, argv[1], 0);
}}
"""

_RUN = """
#include <tinympc/tiny_api.hpp>
#include <tinympc/tiny_data.hpp>
#include "peer.h"
extern "C" {
static char heap[HEAP_BYTES];
static int used;
extern void (*__init_array_start[])(void);
extern void (*__init_array_end[])(void);
void *__dso_handle;
void *_sbrk(int more) { used += more; return heap + used - more; }
int _write(int, const void *, int count) { return count; }
int _read(int, void *, int) { return 0; }
int _close(int) { return 0; }
int _fstat(int, void *) { return -1; }
int _isatty(int) { return 1; }
int _lseek(int, int, int) { return 0; }
int _kill(int, int) { return -1; }
int _getpid(void) { return 1; }
void _exit(int) { for (;;) {} }
void peer_start(void) {
    for (void (**f)(void) = __init_array_start; f < __init_array_end; f++) { (*f)(); }
}
void peer_run(const float *x, float *y) {
    tinyVector state(4);
    state << x[0], x[1], x[2], x[3];
    tiny_set_x0(&tiny_solver, state);
    (void)tiny_solve(&tiny_solver);
    y[0] = (float)tiny_solver.solution->u(0, 0);
    y[1] = (float)tiny_solver.solution->iter;
    y[2] = (float)used;
}
}
"""


def lmpc_ratio() -> Measurement:
    """Run both along eight ways to the origin, TinyMPC from its last solution as it does."""
    planner, board = cart_pole_mpc(), load_board(_BOARD)
    program = linear_mpc_program("lmpc", planner)
    rows = _ways(planner, program)
    ours = verify_on_board(program, observations=rows, board=board)
    frame = torch_network("peer", nn.Linear(4, 3), (4,))  # force, iterations, bytes of heap
    theirs = run_peer(partial(_tinympc, planner), frame, rows, board=board)
    optimum = optimal_actions(planner, rows)
    errors = {
        "ours": np.abs(interpret(program, rows).action[:, 0] - optimum),
        "theirs": np.abs(theirs.outputs[:, 0] - optimum),
    }
    iterations, heap = theirs.outputs[:, 1], int(theirs.outputs[:, 2].max())
    slowest = max(theirs.instructions)
    return Measurement(
        slowest / ours.instructions_max,
        ours=ours.instructions_max,
        theirs=slowest,
        details={
            "seed": 0,
            "board": board.name,
            "steps": len(rows),
            "saturated": int((np.abs(optimum) > 0.4999).sum()),
            "instructions_mean": {
                "ours": ours.instructions_mean,
                "theirs": float(np.mean(theirs.instructions)),
            },
            "largest_force_error_N": {name: float(e.max()) for name, e in errors.items()},
            "mean_force_error_N": {name: float(e.mean()) for name, e in errors.items()},
            "iterations_of_theirs": {
                "mean": float(iterations.mean()),
                "largest": int(iterations.max()),
                "limit": _ITERATIONS,
            },
            "image_bytes": {
                "ours": _image_bytes(program),
                "theirs": theirs.image_bytes,
            },
            "ram_stack_and_heap_bytes": {
                "ours": ours.ram_bytes + ours.stack_used_bytes,
                "theirs": theirs.ram_bytes - _HEAP_BYTES + heap,
            },
        },
    )


def _ways(planner: LinearMPC, program: Program) -> NDArray[np.float32]:
    """Return the states of eight closed loops of our controller, one after the other."""
    states = np.float32(_REACH) * mpc_states(_STARTS)
    ways = []
    for _ in range(_STEPS):
        ways.append(states)
        force = interpret(program, states).action
        after = states @ planner.A.numpy().T + force @ planner.B.numpy().T
        states = after.astype(np.float32)
    return np.stack(ways, axis=1).reshape(-1, states.shape[1])


def _image_bytes(program: Program) -> int:
    with tempfile.TemporaryDirectory(prefix="safectl-mpc-") as name:
        board = load_board(_BOARD)
        return build_image(program, Path(name) / "build", board=board).total_flash_bytes


def _tinympc(planner: LinearMPC, program: Program, folder: Path) -> PeerSources:
    """Compile TinyMPC's generator for the host, let it write the data, and add the frame."""
    del program
    package = _unpacked() / "src" / "tinympc" / "codegen" / "codegen_src"
    includes = [package / path for path in ("include", "include/Eigen", "tinympc", ".")]
    own = [package / "tinympc" / f"{name}.cpp" for name in ("admm", "tiny_api", "rho_benchmark")]
    text = _GENERATE.format(
        A=_values(planner.A.numpy()),
        B=_values(planner.B.numpy()),
        Q=_values(np.diag(planner.Q.numpy())),
        R=_values(planner.R.numpy()),
        N=planner.horizon,
        limit=planner.spec.action[0].high,
        iterations=_ITERATIONS,
    )
    (folder / "generate.cpp").write_text(text, encoding="utf-8")
    (folder / "peer.cpp").write_text(_RUN, encoding="utf-8")
    files = [folder / "generate.cpp", *own, package / "tinympc" / "codegen.cpp"]
    build = [find_tool("g++", "g++"), "-std=c++17", *(f"-I{path}" for path in includes)]
    run_tool(
        [*build, *files, "-o", folder / "generate"],
        purpose="compiling the generator of TinyMPC",
        timeout_s=_TIMEOUT_S,
    )
    run_tool([folder / "generate", f"{folder}/out/"], purpose="running it", timeout_s=_TIMEOUT_S)
    return PeerSources(
        (*own, folder / "out" / "src" / "tiny_data.cpp", folder / "peer.cpp"),
        (*includes, folder / "out"),
        ("-std=c++17", "-fno-exceptions", f"-DHEAP_BYTES={_HEAP_BYTES}"),
        ("-lstdc++", "-lm", "-Wl,--defsym=__exidx_start=0", "-Wl,--defsym=__exidx_end=0"),
    )


def _unpacked() -> Path:
    """Download the source package once."""
    folder = PEERS_FOLDER / TINYMPC
    if not folder.is_dir():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", TINYMPC.replace("-", "=="), "--dest"]
        run_tool([*command, PEERS_FOLDER], purpose=f"getting {TINYMPC}", timeout_s=_TIMEOUT_S)
        with tarfile.open(PEERS_FOLDER / f"{TINYMPC}.tar.gz") as archive:
            archive.extractall(PEERS_FOLDER, filter="data")
    return folder


def _values(array: NDArray[np.float64]) -> str:
    return ", ".join(repr(float(value)) for value in array.ravel())


TINY = (
    Benchmark(
        name="mcu.peer_tinympc_ratio",
        summary="largest instructions of a step of TinyMPC over ours, nx 4, nu 1, N 20, Cortex-M7",
        unit="x",
        baseline="TinyMPC 0.0.8 as packaged, residuals of 1e-3, -O2, same states in the same run",
        target=1.0,
        better="higher",
        quick=False,
        measure=lmpc_ratio,
    ),
)

"""C or C++ of another code generator, built and run in an emulated board in place of a controller.

Packages are installed beside the checkout, not into the environment: they are no dependencies.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from safectl.export import Program
from safectl.export.toolchain import run_tool
from safectl_hardware.board import Board, load_board
from safectl_hardware.emulator import Emulator
from safectl_hardware.image import Image
from safectl_hardware.linker import compile_for, link, section_sizes

_EMPTY = """
void peer_start(void) {}
void peer_run(const float *x, float *y) { for (int i = 0; i < SF_NU; i++) { y[i] = x[0]; } }
"""

PEERS_FOLDER = Path(__file__).parents[3] / "build" / "peers"
"""Where their packages are kept."""

_INSTALL_TIMEOUT_S = 300.0
_STACK_BYTES = 131072
_PAINTED_WORDS = 16384

_HEADER = """
#include "sf_core.h"
#ifdef __cplusplus
extern "C" {
#endif
typedef struct { uint32_t unused; } peer_state;
void peer_start(void);
void peer_run(const float *x, float *y);
#ifdef __cplusplus
}
#endif
static inline void peer_init(peer_state *state) { state->unused = 0u; peer_start(); }
static inline int peer_selftest(peer_state *state) { (void)state; return 0; }
static inline sf_status peer_step(
    peer_state *state, const float *x, float *y, sf_certificate *certificate) {
    (void)state;
    peer_run(x, y);
    certificate->margin = SF_MARGIN_NONE;
    return certificate->status = SF_KEPT;
}
"""


@dataclass(frozen=True, slots=True)
class PeerSources:
    """What a generator wrote: files that define `peer_start` and `peer_run`.

    Attributes:
        paths: C or C++ files.
        includes: Folders of headers.
        options: Compiler options of these files.
        libraries: Linker options after the objects.
    """

    paths: Sequence[Path]
    includes: Sequence[Path] = ()
    options: Sequence[str] = ("-std=gnu99",)
    libraries: Sequence[str] = ("-lm",)


class PeerRun(NamedTuple):
    """What one generator's code cost.

    Attributes:
        instructions: Of each row.
        outputs: Of each row.
        image_bytes: The whole image: with libraries, start-up and session.
        ram_bytes: Static data of the code and the deepest stack of a row.
    """

    instructions: tuple[float, ...]
    outputs: NDArray[np.float32]
    image_bytes: int
    ram_bytes: int


Generate = Callable[[Program, Path], PeerSources]


def install_peer(requirement: str, *more: str) -> Path:
    """Install packages once, without their dependencies, into a folder of their own.

    Raises:
        VerificationError: If they cannot be installed.
    """
    folder = PEERS_FOLDER / requirement.replace("==", "-")
    if not folder.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        run_tool(
            [*command, "--target", folder, requirement, *more],
            purpose=f"installing {requirement}",
            timeout_s=_INSTALL_TIMEOUT_S,
        )
    return folder


def run_peer(
    generate: Generate, program: Program, rows: NDArray[np.float32], *, board: Board | None = None
) -> PeerRun:
    """Generate, build with -O2 and run what another generator makes of a program.

    Raises:
        VerificationError: If the generator is not to be had, or its code does not build or run.
    """
    board = board or load_board()
    with tempfile.TemporaryDirectory(prefix="safectl-peer-") as name:
        folder = Path(name)
        image = _build(generate(program, folder), program, board, folder)
        with Emulator(image) as emulator:
            steps = [emulator.step(row) for row in rows]
    return PeerRun(
        tuple(step.instructions for step in steps),
        np.stack([step.action for step in steps]),
        image.total_flash_bytes,
        image.ram_bytes + max(step.stack_bytes for step in steps),
    )


def empty_peer(program: Program, folder: Path) -> PeerSources:
    """Write a peer that does nothing: its image is what every image holds."""
    del program
    return one_file(folder, _EMPTY)


def one_file(folder: Path, text: str, *includes: Path) -> PeerSources:
    """Write `text`, a C file that may include what was generated beside it."""
    path = folder / "peer.c"
    path.write_text(f'#include "peer.h"\n{text}', encoding="utf-8")
    return PeerSources((path,), includes)


def _build(sources: PeerSources, program: Program, board: Board, folder: Path) -> Image:
    (folder / "peer.h").write_text(_HEADER, encoding="utf-8")
    runtime, ports = files("safectl.export") / "runtime", files("safectl_hardware") / "ports"
    image = folder / "image.elf"
    with as_file(runtime) as core, as_file(ports) as own:
        sizes = (f"-DSF_NX={program.spec.nx}", f"-DSF_NU={program.spec.nu}")
        includes = [f"-I{path}" for path in (folder, *sources.includes, core, own)]
        flags = [
            *sources.options,
            "-O2",
            "-ffunction-sections",
            "-fdata-sections",
            *sizes,
            *includes,
        ]
        objects = [folder / f"{path.stem}.o" for path in sources.paths]
        for path, target in zip(sources.paths, objects, strict=True):
            compile_for(board, [*flags, "-c", path, "-o", target], purpose=f"compiling {path.name}")
        names = {"STATE": "peer_state", "INIT": "peer_init", "STEP": "peer_step"}
        macros = [f"-DSF_{key}={value}" for key, value in names.items()]
        macros += ["-DSF_SELFTEST=peer_selftest", '-DSF_HEADER="peer.h"', *sizes]
        link(
            board,
            [own / "semihost" / file for file in ("session.c", "semihost.c")],
            [*objects, *map(Path, sources.libraries)],  # the linker wants libraries last
            image,
            options=[*macros, f"-DSF_PAINTED_WORDS={_PAINTED_WORDS}", *includes],
            stack_bytes=_STACK_BYTES,
        )
    static = sum(sum(section_sizes(board, path)[1:]) for path in objects)
    text, data, _ = section_sizes(board, image)
    return Image(program, board, image, 0, static, 4 * _PAINTED_WORDS, text + data)

"""Boards, and the build of a program for one: flash, RAM and the stack along the call graph."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from safectl.errors import VerificationError
from safectl.export.emit_c import C_FLAGS, emit_c, sources
from safectl.export.program import Array, Program
from safectl.export.toolchain import COMPILE_TIMEOUT_S, find_tool, run_tool
from safectl_hardware.stack import stack_bound

COMPILER, COMPILER_PACKAGE = "arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi"


@dataclass(frozen=True, slots=True)
class Board:
    """What the build and the emulator need to know about a board.

    Attributes:
        name: Folder under `boards/` with start-up code and linker script.
        machine: Name of the machine in QEMU.
        target: Compiler options of the core.
        clock_hz: Frequency of SysTick in the emulator [Hz].
    """

    name: str
    machine: str
    target: tuple[str, ...]
    clock_hz: float


MPS2_AN386 = Board(
    name="mps2_an386",
    machine="mps2-an386",
    target=("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    clock_hz=25e6,
)
"""Arm MPS2 with a Cortex-M4F; QEMU models its single-precision FPU."""


@dataclass(frozen=True, slots=True)
class Image:
    """A program linked for a board, with the sizes of the controller alone.

    Attributes:
        program: What it computes.
        board: What it runs on.
        path: The ELF file.
        flash_bytes: Code and constants of the controller, without start-up and self-test.
        ram_bytes: Static data of the controller; its state struct comes on top.
        stack_bytes: Deepest path of the call graph from the step function.
    """

    program: Program
    board: Board
    path: Path
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int


def build_image(
    program: Program,
    folder: Path,
    *,
    board: Board = MPS2_AN386,
    optimisation: str = "-O2",
    observations: Array | None = None,
) -> Image:
    """Generate, compile with warnings as errors and link a program for a board.

    Args:
        program: The program.
        folder: Folder to make; the C is in `folder/c`.
        board: The board.
        optimisation: Compiler option.
        observations: Inputs of the self-test; see `emit_c`.

    Raises:
        MissingTool: If the cross compiler is not installed.
        VerificationError: If the code does not compile or its stack is not bounded.
        StorageError: If the folder exists.
    """
    find_tool(COMPILER, COMPILER_PACKAGE)
    emit_c(program, folder / "c", observations=observations)
    controller = [_compile(folder, name, board, optimisation) for name in sources(program)]
    selftest = _compile(folder, f"sf_{program.name}_test.c", board, optimisation)
    flash, ram = _controller_size(program, folder, controller, board)
    image = folder / "image.elf"
    with as_file(files("safectl_hardware") / "boards" / board.name) as support:
        inputs = [support / name for name in ("start.c", "semihost.c", "session.c")]
        linking = ["-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections"]
        linking += ["-Wl,--no-warn-rwx-segments", "-T", f"{support / 'board.ld'}"]
        options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", *_session_options(program)]
        includes = [f"-I{folder / 'c'}", f"-I{support}"]
        sources_and_objects = [*inputs, *controller, selftest]
        _gcc(
            [*board.target, *options, *includes, *sources_and_objects, *linking, "-o", image],
            f"linking controller {program.name} for {board.name}",
        )
    graphs = [path.with_suffix(".ci").read_text(encoding="utf-8") for path in controller]
    bound = stack_bound(graphs, f"sf_{program.name}_step")
    return Image(program, board, image, flash, ram, bound)


def _compile(folder: Path, source: str, board: Board, optimisation: str) -> Path:
    target = (folder / source).with_suffix(".o")
    options = ["-ffunction-sections", "-fdata-sections", "-fcallgraph-info=su"]
    # The compiler may otherwise turn loops into calls of the C library, whose stack it cannot see.
    options.append("-fno-tree-loop-distribute-patterns")
    path = folder / "c" / source
    _gcc(
        [*board.target, *C_FLAGS, optimisation, *options, "-c", path, "-o", target],
        f"compiling {source} for {board.name}",
    )
    return target


def _controller_size(
    program: Program, folder: Path, objects: Sequence[Path], board: Board
) -> tuple[int, int]:
    """Return flash and RAM of what the step and the initialisation need."""
    merged = folder / "controller.o"
    roots = [f"-Wl,-u,sf_{program.name}_{name}" for name in ("init", "step")]
    _gcc(
        [*board.target, "-r", "-nostdlib", "-Wl,--gc-sections", *roots, *objects, "-o", merged],
        f"measuring controller {program.name}",
    )
    size = find_tool("arm-none-eabi-size", "binutils-arm-none-eabi")
    output = run_tool([size, merged], purpose="measuring", timeout_s=COMPILE_TIMEOUT_S)
    found = re.search(r"^\s*(\d+)\s+(\d+)\s+(\d+)", output, re.MULTILINE)
    if found is None:
        raise VerificationError(f"cannot read the sizes in: {output}")
    text, data, bss = (int(number) for number in found.groups())
    return text + data, data + bss


def _session_options(program: Program) -> list[str]:
    prefix = f"sf_{program.name}"
    macros = {
        "SF_HEADER": f'"{prefix}.h"',
        "SF_STATE": f"{prefix}_state",
        "SF_INIT": f"{prefix}_init",
        "SF_STEP": f"{prefix}_step",
        "SF_SELFTEST": f"{prefix}_selftest",
        "SF_NX": str(program.spec.nx),
        "SF_NU": str(program.spec.nu),
    }
    return [f"-D{name}={value}" for name, value in macros.items()]


def _gcc(arguments: Sequence[str | Path], purpose: str) -> None:
    compiler = find_tool(COMPILER, COMPILER_PACKAGE)
    run_tool([compiler, *arguments], purpose=purpose, timeout_s=COMPILE_TIMEOUT_S)

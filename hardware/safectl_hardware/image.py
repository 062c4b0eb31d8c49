"""The build of a program for a board: linked against its memory map, with its sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from safectl.export.emit_c import C_FLAGS, emit_c, sources
from safectl.export.program import Array, Program
from safectl.export.toolchain import COMPILE_TIMEOUT_S, run_tool
from safectl_hardware.board import Board, load_board
from safectl_hardware.linker import (
    compile_for,
    find_compiler,
    find_program,
    link,
    section_sizes,
)
from safectl_hardware.stack import stack_bound, stack_sum

_WITH_CALL_GRAPH = ("arm-none-eabi", "riscv64-unknown-elf")  # GCC 10 and later
_PAINT_BEYOND_BYTES = 64  # painted past the bound, so that a wrong bound is seen
_SESSION_STACK_BYTES = 256  # frames of the session around a step: under 128 B, measured


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
        total_flash_bytes: With start-up, session and self-test.
        total_ram_bytes: With the session, the state struct and the stack that is set aside.
    """

    program: Program
    board: Board
    path: Path
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    total_flash_bytes: int = 0
    total_ram_bytes: int = 0


class Objects(NamedTuple):
    """A compiled controller.

    Attributes:
        controller: Object files of the step function and all it calls.
        selftest: Object file of the self-test.
        stack_bytes: Stack of the step function.
        selftest_stack_bytes: Stack of the self-test.
    """

    controller: tuple[Path, ...]
    selftest: Path
    stack_bytes: int
    selftest_stack_bytes: int


def build_image(
    program: Program,
    folder: Path,
    *,
    board: Board | None = None,
    optimisation: str = "-O2",
    observations: Array | None = None,
    stored: Array | None = None,
) -> Image:
    """Generate, compile with warnings as errors and link a program for a board.

    Args:
        program: The program.
        folder: Folder to make; the C is in `folder/c`.
        board: The board; the default one when absent.
        optimisation: Compiler option.
        observations: Inputs of the self-test; see `emit_c`.
        stored: Observations kept in the image, shape (rows, nx), for a board whose emulator can
            hand it none.

    Raises:
        MissingTool: If the cross compiler is not installed.
        DoesNotFit: If flash or RAM of the board is too small, with the numbers.
        VerificationError: If the code does not compile or its stack is not bounded.
        StorageError: If the folder exists.
    """
    board = board or load_board()
    find_compiler(board)
    emit_c(program, folder / "c", observations=observations)
    objects = compile_controller(program, folder, board, optimisation)
    flash, ram = _controller_size(program, folder, objects.controller, board)
    painted = objects.stack_bytes + _PAINT_BEYOND_BYTES
    with as_file(files("safectl_hardware") / "ports") as ports:
        own = sorted((ports / board.port).glob("session.c")) or [
            ports / "semihost" / "session.c",
            ports / "semihost" / "semihost.c",
        ]
        if stored is None:
            stored = np.zeros((1, program.spec.nx), np.float32)
        (folder / "rows.h").write_text(_rows_header(stored), encoding="utf-8")
        macros = [f"-DSF_PAINTED_WORDS={painted // 4}", *controller_macros(program)]
        link(
            board,
            own,
            [*objects.controller, objects.selftest],
            folder / "image.elf",
            options=[*macros, f"-I{folder}", f"-I{folder / 'c'}", f"-I{ports}"],
            stack_bytes=max(painted, objects.selftest_stack_bytes) + _SESSION_STACK_BYTES,
        )
    path = folder / "image.elf"
    text, data, bss = section_sizes(board, path)
    return Image(program, board, path, flash, ram, objects.stack_bytes, text + data, data + bss)


def compile_controller(
    program: Program, folder: Path, board: Board, optimisation: str = "-O2"
) -> Objects:
    """Compile what `emit_c` wrote to `folder/c` and bound its stack.

    Raises:
        MissingTool: If the cross compiler is not installed.
        VerificationError: If the code does not compile or its stack is not bounded.
    """
    controller = [_compile(folder, name, board, optimisation) for name in sources(program)]
    selftest = _compile(folder, f"sf_{program.name}_test.c", board, optimisation)
    bound = _stack(board, controller, f"sf_{program.name}_step")
    deepest = _stack(board, [*controller, selftest], f"sf_{program.name}_selftest")
    return Objects(tuple(controller), selftest, bound, deepest)


def _compile(folder: Path, source: str, board: Board, optimisation: str) -> Path:
    target = (folder / source).with_suffix(".o")
    options = ["-ffunction-sections", "-fdata-sections", "-fstack-usage"]
    options += ["-fcallgraph-info=su"] if board.toolchain in _WITH_CALL_GRAPH else []
    # The compiler may otherwise turn loops into calls of the C library, whose stack it cannot see.
    options.append("-fno-tree-loop-distribute-patterns")
    compile_for(
        board,
        [*C_FLAGS, optimisation, *options, "-c", folder / "c" / source, "-o", target],
        purpose=f"compiling {source} for {board.name}",
    )
    return target


def _stack(board: Board, objects: Sequence[Path], entry: str) -> int:
    library = board.library_stack_bytes
    suffix = ".ci" if board.toolchain in _WITH_CALL_GRAPH else ".su"
    texts = [path.with_suffix(suffix).read_text(encoding="utf-8") for path in objects]
    if suffix == ".ci":
        return stack_bound(texts, entry, library_bytes=library)
    names = _symbols(board, _merge(board, objects, [entry], objects[0].with_name("reached.o")))
    return stack_sum(texts, names, library_bytes=library)


def _symbols(board: Board, merged: Path) -> frozenset[str]:
    command: list[str | Path] = [find_program(board, "nm"), "--defined-only", "-P", merged]
    output = run_tool(command, purpose="listing functions", timeout_s=COMPILE_TIMEOUT_S)
    return frozenset(line.split(" ")[0] for line in output.splitlines())


def _rows_header(rows: Array) -> str:
    words = [", ".join(f"0x{word:08x}u" for word in row) for row in rows.view(np.uint32)]
    table = "".join(f"    {{{row}}},\n" for row in words)
    return (
        f"#define ROWS {len(rows)}\n"
        f"static const uint32_t rows[ROWS][SF_NX] PROGMEM = {{\n{table}}};\n"
    )


def _controller_size(
    program: Program, folder: Path, objects: Sequence[Path], board: Board
) -> tuple[int, int]:
    """Return flash and RAM of what the step and the initialisation need."""
    roots = [f"sf_{program.name}_{name}" for name in ("init", "step")]
    text, data, bss = section_sizes(board, _merge(board, objects, roots, folder / "controller.o"))
    return text + data, data + bss


def _merge(board: Board, objects: Sequence[Path], roots: Sequence[str], merged: Path) -> Path:
    """Join objects and keep what some functions need."""
    core = [option for option in board.target if not option.startswith("--specs")]  # no C library
    kept = [f"-Wl,-u,{name}" for name in roots]
    joining: list[str | Path] = [*core, "-r", "-nostdlib", "-Wl,--gc-sections", *kept, *objects]
    command: list[str | Path] = [find_compiler(board), *joining, "-o", merged]
    run_tool(
        command,
        purpose=f"joining {merged.name} for {board.name}",
        timeout_s=COMPILE_TIMEOUT_S,
    )
    return merged


def controller_macros(program: Program) -> list[str]:
    """Return the macros that tell a session or firmware the names in the generated C."""
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

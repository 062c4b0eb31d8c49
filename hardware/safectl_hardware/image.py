"""The build of a program for a board: linked against its memory map, with its sizes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from string import Template

from safectl.errors import DoesNotFit, VerificationError
from safectl.export.emit_c import C_FLAGS, emit_c, sources
from safectl.export.program import Array, Program
from safectl.export.toolchain import COMPILE_TIMEOUT_S, find_tool, run_tool
from safectl_hardware.board import Board, load_board
from safectl_hardware.stack import stack_bound

_PACKAGES = {
    "arm-none-eabi": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "riscv64-unknown-elf": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
}
_PAINT_BEYOND_BYTES = 256  # painted past the bound, so that a wrong bound is seen
_SESSION_STACK_BYTES = 1024  # frames of the session around a step: under 200 B, measured
_OVERFLOW = re.compile(r"region `(\w+)' overflowed by (\d+) bytes")


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
    board: Board | None = None,
    optimisation: str = "-O2",
    observations: Array | None = None,
) -> Image:
    """Generate, compile with warnings as errors and link a program for a board.

    Args:
        program: The program.
        folder: Folder to make; the C is in `folder/c`.
        board: The board; the default one when absent.
        optimisation: Compiler option.
        observations: Inputs of the self-test; see `emit_c`.

    Raises:
        MissingTool: If the cross compiler is not installed.
        DoesNotFit: If flash or RAM of the board is too small, with the numbers.
        VerificationError: If the code does not compile or its stack is not bounded.
        StorageError: If the folder exists.
    """
    board = board or load_board()
    find_compiler(board)
    emit_c(program, folder / "c", observations=observations)
    controller = [_compile(folder, name, board, optimisation) for name in sources(program)]
    selftest = _compile(folder, f"sf_{program.name}_test.c", board, optimisation)
    flash, ram = _controller_size(program, folder, controller, board)
    graphs = [path.with_suffix(".ci").read_text(encoding="utf-8") for path in controller]
    library = board.library_stack_bytes
    bound = stack_bound(graphs, f"sf_{program.name}_step", library_bytes=library)
    graphs.append(selftest.with_suffix(".ci").read_text(encoding="utf-8"))
    deepest = stack_bound(graphs, f"sf_{program.name}_selftest", library_bytes=library)
    painted = bound + _PAINT_BEYOND_BYTES
    with as_file(files("safectl_hardware") / "ports") as ports:
        session = [f"-DSF_PAINTED_WORDS={painted // 4}", *_session_options(program)]
        link(
            board,
            [ports / "semihost" / "session.c", ports / "semihost" / "semihost.c"],
            [*controller, selftest],
            folder / "image.elf",
            options=[*session, f"-I{folder / 'c'}", f"-I{ports / 'semihost'}"],
            stack_bytes=max(painted, deepest) + _SESSION_STACK_BYTES,
        )
    return Image(program, board, folder / "image.elf", flash, ram, bound)


def find_compiler(board: Board) -> str:
    """Return the path of the board's compiler.

    Raises:
        MissingTool: With the Debian packages that hold it.
        VerificationError: If the board needs a compiler that Debian does not hold.
    """
    return _find_program(board, "gcc")


def link(
    board: Board,
    own: Sequence[Path],
    objects: Sequence[Path],
    image: Path,
    *,
    options: Sequence[str],
    stack_bytes: int,
) -> None:
    """Compile the sources of a session or firmware with the board's port and link all.

    Args:
        board: The board.
        own: C files.
        objects: Compiled controller.
        image: ELF file to write; the linker script is written beside it.
        options: Macros and include paths of the C files.
        stack_bytes: Stack that must have room in RAM.

    Raises:
        DoesNotFit: If flash or RAM of the board is too small, with the numbers.
        VerificationError: If it does not compile or link.
    """
    script = image.with_suffix(".ld")
    with as_file(files("safectl_hardware") / "ports") as ports:
        port = ports / board.port
        template = (port / "link.ld.in").read_text(encoding="utf-8")
        script.write_text(Template(template).substitute(_memory_map(board, stack_bytes)))
        warnings = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
        includes = [f"-I{port}", f"-I{ports / 'semihost'}"]
        sections = ["-nostartfiles", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments"]
        linking: list[str | Path] = [*sections, "-T", script, "-o", image]
        inputs = [port / "start.c", *own, *objects]
        try:
            compile_for(
                board,
                [*warnings, *options, *includes, *inputs, *linking],
                purpose=f"linking {image.name} for {board.name}",
            )
        except VerificationError as error:
            _require_fit(board, image.stem, str(error))
            raise


def compile_for(board: Board, arguments: Sequence[str | Path], *, purpose: str) -> None:
    """Run the compiler of a board with the options of its core.

    Raises:
        MissingTool: If it is not installed.
        VerificationError: If it fails, with what it said.
    """
    compiler = find_compiler(board)
    run_tool([compiler, *board.target, *arguments], purpose=purpose, timeout_s=COMPILE_TIMEOUT_S)


def _require_fit(board: Board, what: str, said: str) -> None:
    """Turn the linker's words about an overflow into one error."""
    for region, excess in _OVERFLOW.findall(said):
        size = board.flash.size if region == "FLASH" else board.ram.size
        raise DoesNotFit(what, board.name, region, needed=size + int(excess), available=size)


def _memory_map(board: Board, stack_bytes: int) -> dict[str, str]:
    return {
        "name": board.summary,
        "flash_origin": f"{board.flash.origin:#x}",
        "flash_size": str(board.flash.size),
        "ram_origin": f"{board.ram.origin:#x}",
        "ram_size": str(board.ram.size),
        "stack_bytes": str((stack_bytes + 7) // 8 * 8),
    }


def _compile(folder: Path, source: str, board: Board, optimisation: str) -> Path:
    target = (folder / source).with_suffix(".o")
    options = ["-ffunction-sections", "-fdata-sections", "-fcallgraph-info=su"]
    # The compiler may otherwise turn loops into calls of the C library, whose stack it cannot see.
    options.append("-fno-tree-loop-distribute-patterns")
    compile_for(
        board,
        [*C_FLAGS, optimisation, *options, "-c", folder / "c" / source, "-o", target],
        purpose=f"compiling {source} for {board.name}",
    )
    return target


def _controller_size(
    program: Program, folder: Path, objects: Sequence[Path], board: Board
) -> tuple[int, int]:
    """Return flash and RAM of what the step and the initialisation need."""
    merged = folder / "controller.o"
    roots = [f"-Wl,-u,sf_{program.name}_{name}" for name in ("init", "step")]
    core = [option for option in board.target if not option.startswith("--specs")]  # no C library
    joined: list[str | Path] = [
        *core,
        "-r",
        "-nostdlib",
        "-Wl,--gc-sections",
        *roots,
        *objects,
        "-o",
        merged,
    ]
    run_tool(
        [find_compiler(board), *joined],
        purpose=f"measuring controller {program.name}",
        timeout_s=COMPILE_TIMEOUT_S,
    )
    text, data, bss = section_sizes(board, merged)
    return text + data, data + bss


def section_sizes(board: Board, path: Path) -> tuple[int, int, int]:
    """Return the bytes of text, data and bss of an object or image.

    Raises:
        MissingTool: If the toolchain's `size` is not installed.
        VerificationError: If the file is no object.
    """
    size = _find_program(board, "size")
    output = run_tool([size, path], purpose="measuring", timeout_s=COMPILE_TIMEOUT_S)
    found = re.search(r"^\s*(\d+)\s+(\d+)\s+(\d+)", output, re.MULTILINE)
    if found is None:
        raise VerificationError(f"cannot read the sizes in: {output}")
    text, data, bss = (int(number) for number in found.groups())
    return text, data, bss


def _find_program(board: Board, program: str) -> str:
    if board.toolchain not in _PACKAGES:
        raise VerificationError(
            f"{board.name} needs {board.toolchain}-{program}, which Debian does not hold; compile "
            "the exported C in a project of its maker"
        )
    return find_tool(f"{board.toolchain}-{program}", _PACKAGES[board.toolchain])


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

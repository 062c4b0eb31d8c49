"""The compiler and linker of a board: its options, its memory map, and whether an image fits."""

import re
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from string import Template

from safectl.errors import DoesNotFit, VerificationError
from safectl.export.toolchain import COMPILE_TIMEOUT_S, find_tool, run_tool
from safectl_hardware.board import Board

_PACKAGES = {
    "arm-none-eabi": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "avr": "gcc-avr avr-libc",
    "riscv64-unknown-elf": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
}
_OVERFLOW = re.compile(r"region `(\w+)' overflowed by (\d+) bytes")
_OUTSIDE = re.compile(r"address 0x([0-9a-f]+) of .* section `[.\w]+' is not within region `data'")


def find_compiler(board: Board) -> str:
    """Return the path of the board's compiler.

    Raises:
        MissingTool: With the Debian packages that hold it.
        VerificationError: If the board needs a compiler that Debian does not hold.
    """
    return find_program(board, "gcc")


def find_program(board: Board, program: str) -> str:
    """Return the path of a program of the board's toolchain, such as "objcopy".

    Raises:
        MissingTool: With the Debian packages that hold it.
        VerificationError: If the board needs a toolchain that Debian does not hold.
    """
    if board.toolchain not in _PACKAGES:
        raise VerificationError(
            f"{board.name} needs {board.toolchain}-{program}, which Debian does not hold; compile "
            "the exported C in a project of its maker"
        )
    return find_tool(f"{board.toolchain}-{program}", _PACKAGES[board.toolchain])


def compile_for(board: Board, arguments: Sequence[str | Path], *, purpose: str) -> None:
    """Run the compiler of a board with the options of its core.

    Raises:
        MissingTool: If it is not installed.
        VerificationError: If it fails, with what it said.
    """
    compiler = find_compiler(board)
    run_tool([compiler, *board.target, *arguments], purpose=purpose, timeout_s=COMPILE_TIMEOUT_S)


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
        image: ELF file to write; a linker script is written beside it.
        options: Macros and include paths of the C files.
        stack_bytes: Stack that must have room in RAM.

    Raises:
        DoesNotFit: If flash or RAM of the board is too small, with the numbers.
        VerificationError: If it does not compile or link.
    """
    with as_file(files("safectl_hardware") / "ports") as ports:
        port = ports / board.port
        own = [*own, *port.glob("start.c")]
        warnings = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
        includes = [f"-I{port}", f"-I{ports / 'semihost'}"]
        inputs: list[str | Path] = [*warnings, *options, *includes, *own, *objects]
        layout = _linker_script(board, port / "link.ld.in", image, stack_bytes)
        try:
            compile_for(
                board,
                [*inputs, *layout, "-Wl,--gc-sections", "-o", image],
                purpose=f"linking {image.name} for {board.name}",
            )
        except VerificationError as error:
            _require_linked(board, image.stem, str(error))
            raise
    _require_fit(board, image, 0 if layout else stack_bytes)


def section_sizes(board: Board, path: Path) -> tuple[int, int, int]:
    """Return the bytes of text, data and bss of an object or image.

    Raises:
        MissingTool: If the toolchain's `size` is not installed.
        VerificationError: If the file is no object.
    """
    size = find_program(board, "size")
    output = run_tool([size, path], purpose="measuring", timeout_s=COMPILE_TIMEOUT_S)
    found = re.search(r"^\s*(\d+)\s+(\d+)\s+(\d+)", output, re.MULTILINE)
    if found is None:
        raise VerificationError(f"cannot read the sizes in: {output}")
    text, data, bss = (int(number) for number in found.groups())
    return text, data, bss


def _linker_script(board: Board, template: Path, image: Path, stack_bytes: int) -> list[str]:
    """Write the linker script and return its options; none where the compiler brings its own."""
    if not template.is_file():
        return []
    script = image.with_suffix(".ld")
    text = Template(template.read_text(encoding="utf-8"))
    script.write_text(text.substitute(_memory_map(board, stack_bytes)), encoding="utf-8")
    return ["-nostartfiles", "-Wl,--no-warn-rwx-segments", "-T", str(script)]


def _memory_map(board: Board, stack_bytes: int) -> dict[str, str]:
    return {
        "name": board.summary,
        "flash_origin": f"{board.flash.origin:#x}",
        "flash_size": str(board.flash.size),
        "ram_origin": f"{board.ram.origin:#x}",
        "ram_size": str(board.ram.size),
        "stack_bytes": str((stack_bytes + 7) // 8 * 8),
    }


def _require_linked(board: Board, what: str, said: str) -> None:
    """Turn the linker's words about an overflow into one error."""
    for region, excess in _OVERFLOW.findall(said):
        is_flash = region in ("FLASH", "text")
        size = board.flash.size if is_flash else board.ram.size
        name = "flash" if is_flash else "RAM"
        raise DoesNotFit(what, board.name, name, needed=size + int(excess), available=size)
    ends = [int(address, 16) for address in _OUTSIDE.findall(said)]
    if ends:
        needed = max(ends) - board.ram.origin
        raise DoesNotFit(what, board.name, "RAM", needed=needed, available=board.ram.size)


def _require_fit(board: Board, image: Path, stack_bytes: int) -> None:
    """Check the sizes of a linked image, with a stack that its sections do not hold."""
    text, data, bss = section_sizes(board, image)
    for region, needed, available in (
        ("flash", text + data, board.flash.size),
        ("RAM", data + bss + stack_bytes, board.ram.size),
    ):
        if needed > available:
            raise DoesNotFit(image.stem, board.name, region, needed=needed, available=available)

"""A controller as firmware: it answers observations on the board's serial line with actions.

It starts stopped, runs after a handshake with equal specification and limits, and stops by itself
on silence. Its self-test runs at boot; firmware that fails it accepts no handshake.
"""

import zlib
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from safectl.errors import VerificationError
from safectl.export.emit_c import emit_c
from safectl.export.program import Program, action_limits
from safectl.spec import Spec
from safectl_hardware.board import Board, board_names, load_board
from safectl_hardware.image import compile_controller, controller_macros
from safectl_hardware.linker import link, section_sizes

_LOOP_STACK_BYTES = 1024
"""Frames of the main loop around a step or the self-test: under 300 B for 16 signals, measured."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """Firmware for a board.

    Attributes:
        path: The ELF file.
        board: What it runs on.
        flash_bytes: All of it: start-up, controller, self-test, protocol.
        ram_bytes: Everything that changes, with the stack that is set aside.
    """

    path: Path
    board: Board
    flash_bytes: int
    ram_bytes: int


def build_firmware(program: Program, folder: Path, *, board: Board) -> Firmware:
    """Generate, compile and link the firmware of a controller.

    Args:
        program: The controller.
        folder: Folder to make: `c/` and `firmware.elf`.
        board: A board whose serial line is known.

    Raises:
        MissingTool: If the cross compiler is not installed.
        DoesNotFit: If flash or RAM of the board is too small, with the numbers.
        VerificationError: If the code does not compile, or the serial line of the board is unknown.
        StorageError: If the folder exists.
    """
    if not board.serial:
        known = [name for name in board_names() if load_board(name).serial]
        raise VerificationError(
            f"the serial line of {board.name} is not known, so no firmware can be built; boards "
            f"with one: {', '.join(known)}. Compile the exported C in your own project instead"
        )
    emit_c(program, folder / "c")
    objects = compile_controller(program, folder, board)
    path = folder / "firmware.elf"
    runtime = files("safectl.export") / "runtime"
    with as_file(files("safectl_hardware")) as own, as_file(runtime) as core:
        ports, frames = own / "ports", own / "runtime"
        includes = [folder / "c", ports, ports / "firmware", ports / "uart", frames, core]
        macros = [*controller_macros(program), *_identity(program, board)]
        link(
            board,
            [
                ports / "firmware" / "controller.c",
                ports / "firmware" / "line.c",
                ports / "uart" / f"{board.serial}.c",
                frames / "sf_frame.c",
                core / "sf_watchdog.c",
            ],
            [*objects.controller, objects.selftest],
            path,
            options=[*macros, *(f"-I{folder}" for folder in includes)],
            stack_bytes=max(objects.stack_bytes, objects.selftest_stack_bytes) + _LOOP_STACK_BYTES,
        )
    text, data, bss = section_sizes(board, path)
    return Firmware(path, board, text + data, data + bss)


def limits_crc32(spec: Spec) -> int:
    """Condense the action limits, as the float32 numbers that a board compares with."""
    return zlib.crc32(np.stack(action_limits(spec)).astype("<f4").tobytes())


def _identity(program: Program, board: Board) -> list[str]:
    spec = program.spec
    counter_hz = board.emulation.counter_hz if board.emulation else board.clock_hz
    macros = {
        "SF_SPEC_DIGEST": f"{spec.digest():#x}u",
        "SF_PROGRAM_DIGEST": f"{program.digest():#x}u",
        "SF_LIMITS_CRC": f"{limits_crc32(spec):#x}u",
        "SF_PERIOD_US": f"{round(spec.period * 1e6)}u",
        "SF_COUNTER_HZ": f"{counter_hz:.0f}u",
    }
    return [f"-D{name}={value}" for name, value in macros.items()]

"""Firmware with a serial line: a controller that answers observations, or a robot.

Both start stopped, run after a handshake with equal specification and limits, and stop by
themselves on silence. A controller tests itself at boot and accepts no handshake if that fails.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from safectl.errors import VerificationError
from safectl.export.emit_c import emit_c
from safectl.export.literals import float_literal
from safectl.export.program import Program, action_limits
from safectl.files import new_folder
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
    _require_serial(board)
    emit_c(program, folder / "c")
    objects = compile_controller(program, folder, board)
    stack = max(objects.stack_bytes, objects.selftest_stack_bytes)
    program_digest = f"-DSF_PROGRAM_DIGEST={program.digest():#x}u"
    return _link(
        program.spec,
        folder,
        board,
        own=["controller.c"],
        objects=[*objects.controller, objects.selftest],
        macros=[*controller_macros(program), program_digest],
        stack_bytes=stack + _LOOP_STACK_BYTES,
    )


def build_robot(spec: Spec, folder: Path, *, board: Board, plant: Path | None = None) -> Firmware:
    """Generate, compile and link the firmware of a robot that takes safe commands.

    Args:
        spec: Signals; the action limits are compiled in.
        folder: Folder to make: `robot_limits.h` and `firmware.elf`.
        board: A board whose serial line is known.
        plant: C file with the three functions of `ports/firmware/plant.h`, which may include
            `robot_limits.h`; an integrator for tests when absent.

    Raises:
        MissingTool, DoesNotFit, VerificationError, StorageError: As `build_firmware`.
    """
    _require_serial(board)
    with new_folder(folder) as draft:
        (draft / "robot_limits.h").write_text(_limits_header(spec), encoding="utf-8")
    return _link(
        spec,
        folder,
        board,
        own=["robot.c", plant or "integrator.c"],
        objects=[],
        macros=[],
        stack_bytes=_LOOP_STACK_BYTES,
    )


def limits_crc32(spec: Spec) -> int:
    """Condense the action limits, as the float32 numbers that a board compares with."""
    return zlib.crc32(np.stack(action_limits(spec)).astype("<f4").tobytes())


def _require_serial(board: Board) -> None:
    if not board.serial:
        known = [name for name in board_names() if load_board(name).serial]
        raise VerificationError(
            f"the serial line of {board.name} is not known, so no firmware can be built; boards "
            f"with one: {', '.join(known)}. Compile the exported C in your own project instead"
        )


def _link(
    spec: Spec,
    folder: Path,
    board: Board,
    *,
    own: Sequence[str | Path],
    objects: Sequence[Path],
    macros: Sequence[str],
    stack_bytes: int,
) -> Firmware:
    """Link files of `ports/firmware` (or of the user) with the protocol and the board's line."""
    path = folder / "firmware.elf"
    runtime = files("safectl.export") / "runtime"
    with as_file(files("safectl_hardware")) as package, as_file(runtime) as core:
        ports, frames = package / "ports", package / "runtime"
        includes = [folder, folder / "c", ports, ports / "firmware", ports / "uart", frames, core]
        roles = [ports / "firmware" / name for name in own]  # an absolute path stays as it is
        lines = [ports / "firmware" / "line.c", ports / "uart" / f"{board.serial}.c"]
        shared = [frames / "sf_frame.c"]
        if not objects:  # part of every controller
            shared += [core / "sf_core.c", core / "sf_watchdog.c"]
        link(
            board,
            [*roles, *lines, *shared],
            objects,
            path,
            options=[*macros, *_identity(spec, board), *(f"-I{folder}" for folder in includes)],
            stack_bytes=stack_bytes,
        )
    text, data, bss = section_sizes(board, path)
    return Firmware(path, board, text + data, data + bss)


def _identity(spec: Spec, board: Board) -> list[str]:
    counter_hz = board.emulation.counter_hz if board.emulation else board.clock_hz
    macros = {
        "SF_SPEC_DIGEST": f"{spec.digest():#x}u",
        "SF_LIMITS_CRC": f"{limits_crc32(spec):#x}u",
        "SF_PERIOD_US": f"{round(spec.period * 1e6)}u",
        "SF_COUNTER_HZ": f"{counter_hz:.0f}u",
    }
    return [f"-D{name}={value}" for name, value in macros.items()]


def _limits_header(spec: Spec) -> str:
    low, high = (", ".join(float_literal(number) for number in row) for row in action_limits(spec))
    return (
        "/* Action limits of a robot, written by safectl. */\n"
        "#ifndef ROBOT_LIMITS_H\n#define ROBOT_LIMITS_H\n\n"
        f"#define SF_NX {spec.nx}\n#define SF_NU {spec.nu}\n"
        f"#define SF_PERIOD_S {float_literal(np.float32(spec.period))}\n\n"
        f"static const float action_low[SF_NU] __attribute__((unused)) = {{{low}}};\n"
        f"static const float action_high[SF_NU] __attribute__((unused)) = {{{high}}};\n\n"
        "#endif\n"
    )

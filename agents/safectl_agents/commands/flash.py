"""`safectl flash`: write an exported firmware to a board, verify it, and shake hands with it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from safectl.errors import ConfigError, RangeError, SpecMismatch
from safectl.export import Program, load_program
from safectl_hardware.board import Board, load_board
from safectl_hardware.flash import FLASH_TIMEOUT_S, flash, flash_plan
from safectl_hardware.line import Role, SerialLine
from safectl_hardware.port import serial_port
from safectl_hardware.release import FIRMWARE, load_release


@dataclass(frozen=True, slots=True)
class FlashSettings:
    """What to flash, where and how."""

    folder: Path = Path()
    """Folder that `export --board` made, or an image; also the first word after `flash`."""
    board: str = ""
    """Name of the board; that of the folder without."""
    tool: str = ""
    """Flashing tool; the first one of the board's profile without."""
    port: str = ""
    """Serial port or address of a gdb server, for tools that need one."""
    serial: str = ""
    """Serial port of the running firmware: it must pass its self-test and report our digests."""
    timeout_s: float = FLASH_TIMEOUT_S
    """Limit for each run of the tool [s], > 0."""
    dry_run: bool = False
    """Print the commands and run nothing."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if not self.timeout_s > 0.0:
            raise RangeError("timeout_s", value=self.timeout_s, expected="above 0")


DEFAULTS = FlashSettings()


def run(settings: FlashSettings) -> int:
    """Flash and verify; any doubt is an error."""
    if settings.folder == Path():
        raise ConfigError("flash", "name the folder that safectl export --board made, or an image")
    board, image, program = _subject(settings)
    if settings.serial and program is None:
        raise ConfigError("flash", "--serial needs a folder that safectl export --board made")
    with flash_plan(board, image, tool=settings.tool, port=settings.port) as plan:
        if settings.dry_run:
            sys.stdout.write(f"{plan}\n")
            return 0
        flash(plan, timeout_s=settings.timeout_s, report=_ignore if settings.json else _report)
    is_verified = plan.programmer.verifies
    if settings.serial and program is not None:
        _shake_hands(program, settings.serial)
        is_verified = True
    if settings.json:
        facts = {"board": board.name, "image": str(image), "verified": is_verified}
        sys.stdout.write(f"{json.dumps(facts | {'commands': str(plan).splitlines()})}\n")
    elif is_verified:
        sys.stdout.write(f"{image} is on {board.name}\n")
    else:
        advice = "name the port of the running firmware with --serial"
        sys.stdout.write(f"{image} was sent to {board.name}, not verified; {advice}\n")
    if settings.serial and not settings.json:
        sys.stdout.write("the board passed its self-test and has our specification and program\n")
    return 0


def _subject(settings: FlashSettings) -> tuple[Board, Path, Program | None]:
    """Return the board, the image, and the program that the image must hold."""
    if settings.folder.is_file():
        if not settings.board:
            raise ConfigError("flash", "name the board of this image with --board")
        return load_board(settings.board), settings.folder, None
    release = load_release(settings.folder)
    board = load_board(settings.board or release.board)
    if board.name != release.board:
        raise ConfigError("flash", f"the folder was exported for {release.board}, not {board.name}")
    if not release.is_firmware:
        raise ConfigError(
            "flash",
            f"the serial line of {board.name} is not known, so there is no firmware; compile "
            f"{settings.folder}/c in your own project and flash its image",
        )
    program = load_program(settings.folder / "program")
    digests = program.spec.digest(), program.digest()
    if digests != (release.spec_digest, release.program_digest):
        difference = f"{digests} against {(release.spec_digest, release.program_digest)}"
        raise SpecMismatch("program/", FIRMWARE, f"digests {difference}; export again")
    return board, settings.folder / FIRMWARE, program


def _shake_hands(program: Program, port: str) -> None:
    line = SerialLine(
        serial_port(port), program.spec, role=Role.CONTROLLER, program_digest=program.digest()
    )
    try:
        line.connect()
    finally:
        line.close()


def _ignore(command: str) -> None:
    del command


def _report(command: str) -> None:
    sys.stdout.write(f"{command}\n")
    sys.stdout.flush()

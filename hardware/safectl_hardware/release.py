"""A folder that holds what a board needs: firmware where we can build it, sizes, and digests."""

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from safectl.errors import FileFormatError
from safectl.export.program import Program
from safectl.files import read_json, write_json
from safectl_hardware.board import Board
from safectl_hardware.firmware import build_firmware
from safectl_hardware.image import build_image

FIRMWARE = "firmware.elf"
_FACTS = "board.json"
_ADVICE = "export it again with safectl export --board"


@dataclass(frozen=True, slots=True)
class Release:
    """What was built for a board.

    Attributes:
        board: Name of the board.
        is_firmware: Whether `firmware.elf` exists; else the board's serial line is not known and
            the exported C is for the user's own project.
        flash_bytes: Of the firmware, or of controller and self-test in a check build.
        ram_bytes: Everything that changes, with the stack that is set aside.
        spec_digest: Of the specification.
        program_digest: Of the program.
    """

    board: str
    is_firmware: bool
    flash_bytes: int
    ram_bytes: int
    spec_digest: int
    program_digest: int


def write_release(program: Program, board: Board, folder: Path) -> Release:
    """Build a program for a board and leave firmware and facts in an existing folder.

    Raises:
        MissingTool: If the cross compiler is not installed.
        DoesNotFit: If flash or RAM of the board is too small, with the numbers.
        VerificationError: If the code does not compile.
    """
    digests = program.spec.digest(), program.digest()
    with tempfile.TemporaryDirectory(prefix="safectl-release-") as name:
        if board.serial:
            firmware = build_firmware(program, Path(name) / "build", board=board)
            shutil.copyfile(firmware.path, folder / FIRMWARE)
            sizes = firmware.flash_bytes, firmware.ram_bytes
        else:
            image = build_image(program, Path(name) / "build", board=board)
            sizes = image.total_flash_bytes, image.total_ram_bytes
    release = Release(board.name, bool(board.serial), *sizes, *digests)
    write_json(folder / _FACTS, asdict(release))
    return release


def load_release(folder: Path) -> Release:
    """Read what `write_release` wrote.

    Raises:
        FileFormatError: If the folder holds no such build.
    """
    path = folder / _FACTS
    facts = read_json(path, advice=_ADVICE)
    try:
        release = Release(**facts)
    except TypeError as error:
        raise FileFormatError(path, f"is no description of a build ({error})", _ADVICE) from error
    if release.is_firmware and not (folder / FIRMWARE).is_file():
        raise FileFormatError(folder / FIRMWARE, "is missing", _ADVICE)
    return release

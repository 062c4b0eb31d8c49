"""What a flashing tool is: argument lists, the proof of success, and what each failure means.

Every tool is told not to wait for a device, and to verify what it wrote. An exit status of zero is
believed only with the tool's own words of verification, where it has such words: `pyocd` returns
zero on a mismatch, and listing devices succeeds without any.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from safectl_hardware.board import Board

Format = Literal["elf", "bin", "hex"]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be flashed.

    Attributes:
        board: The board.
        files: The image by format, those that exist.
        options: The tool's options in the profile of the board.
        port: Serial port, or address of a gdb server; empty where the tool finds the device itself.
        readback: File that does not exist yet, for tools that read the flash back.
    """

    board: Board
    files: Mapping[Format, Path]
    options: Mapping[str, str]
    port: str
    readback: Path


class Cause(NamedTuple):
    """A failure: exit status (None for any), a pattern in the output, and what it means."""

    status: int | None
    pattern: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Programmer:
    """A flashing tool.

    Attributes:
        tool: Name of its program.
        source: How to install it.
        formats: Image formats that it needs.
        arguments: Argument lists, one per run of the program, in order.
        proofs: Pattern that the output of each run must hold; empty where another run, the flash
            read back, or only the running firmware proves it.
        causes: Known failures, the first that fits counts.
        needs: Options that the profile must hold.
        needs_port: Whether a port must be named.
        reads_back: Whether the last run leaves the content of the flash in `Job.readback`.
    """

    tool: str
    source: str
    formats: tuple[Format, ...]
    arguments: Callable[[Job], list[list[str]]]
    proofs: tuple[str, ...]
    causes: tuple[Cause, ...]
    needs: tuple[str, ...] = ()
    needs_port: bool = False
    reads_back: bool = False

    @property
    def verifies(self) -> bool:
        """Whether success means that the flash holds the image.

        Else only the running firmware can prove it, which tests itself and reports its digests.
        """
        return self.reads_back or any(self.proofs)


def cause_of(programmer: Programmer, status: int, output: str) -> str:
    """Return what an exit status and the output of a tool mean."""
    for cause in programmer.causes:
        if cause.status in (None, status) and re.search(cause.pattern, output, re.IGNORECASE):
            return cause.meaning
    return f"the tool failed with exit status {status}"

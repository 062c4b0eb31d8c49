"""Board profiles: what a build, an emulator and a programmer must know, read from `boards/NAME`.

Adding a board is adding a folder with a `board.toml`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from safectl.errors import ConfigError, UnknownNameError

DEFAULT_BOARD = "mps2-an386"


@dataclass(frozen=True, slots=True)
class Memory:
    """A region of the memory map, in bytes."""

    origin: int
    size: int


@dataclass(frozen=True, slots=True)
class Emulation:
    """How a board is emulated.

    Attributes:
        tool: Name of the emulator's program.
        machine: Its name for the machine.
        counter_hz: Frequency of the counter that the session on the board reads [Hz].
        counts: What one unit of the reported cost is.
    """

    tool: Literal["qemu-system-arm", "qemu-system-riscv32", "simavr"]
    machine: str
    counter_hz: float
    counts: Literal["instructions", "cycles"] = "instructions"


@dataclass(frozen=True, slots=True)
class Board:
    """A board profile.

    Attributes:
        name: Folder under `boards/`.
        summary: Processor and maker, for people.
        port: Folder under `ports/` with start-up code and linker script.
        toolchain: Prefix of the compiler's programs.
        target: Compiler options of the core.
        clock_hz: Frequency of the core [Hz].
        flash: Where code and constants lie.
        ram: Where everything that changes lies.
        library_stack_bytes: What a routine of the compiler's own library may take from the stack;
            0 where the core computes floats itself and none is called.
        serial: Driver of its serial line, a file in `ports/uart`; empty where none is written.
        emulation: How it is emulated, None where no emulator models it.
        programmers: Options by flashing tool; the first one is the default.
    """

    name: str
    summary: str
    port: str
    toolchain: str
    target: tuple[str, ...]
    clock_hz: float
    flash: Memory
    ram: Memory
    library_stack_bytes: int = 0
    serial: str = ""
    emulation: Emulation | None = None
    programmers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def board_names() -> tuple[str, ...]:
    """Return the names of the known boards, sorted."""
    folders = (files("safectl_hardware") / "boards").iterdir()
    return tuple(sorted(folder.name for folder in folders if (folder / "board.toml").is_file()))


def load_board(name: str = DEFAULT_BOARD) -> Board:
    """Read the profile of a board.

    Raises:
        UnknownNameError: If there is no such board.
        ConfigError: If its profile is damaged.
    """
    if name not in board_names():
        raise UnknownNameError("board", name, known=board_names(), shown=len(board_names()))
    path = files("safectl_hardware") / "boards" / name / "board.toml"
    return parse_board(name, path.read_text(encoding="utf-8"))


def parse_board(name: str, text: str) -> Board:
    """Read the text of a `board.toml`.

    Raises:
        ConfigError: If it is not TOML, lacks a key or holds a value of the wrong type.
    """
    try:
        return TypeAdapter(Board).validate_python({"name": name, **tomllib.loads(text)})
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(f"board {name}", f"has no usable profile: {error}") from error

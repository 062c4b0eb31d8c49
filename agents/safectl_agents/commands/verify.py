"""`safectl verify`: build, run and compare an exported program, on the host and on a board."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from safectl.errors import ConfigError, RangeError
from safectl.export import load_program, verify
from safectl_hardware.board import DEFAULT_BOARD, load_board
from safectl_hardware.verify import verify_on_board


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """What to verify."""

    folder: Path = Path()
    """Folder that `export` made, or a program's own; also the first word after `verify`."""
    board: str = DEFAULT_BOARD
    """Name of an emulated board."""
    rows: int = 1000
    """Observations to compare, >= 1."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise RangeError("rows", value=self.rows, expected="at least 1")


DEFAULTS = VerifySettings()


def run(settings: VerifySettings) -> int:
    """Return 0; any difference is an error."""
    if settings.folder == Path():
        raise ConfigError("verify", "name the folder that safectl export made")
    inside = settings.folder / "program"
    program = load_program(inside if inside.is_dir() else settings.folder)
    profile = load_board(settings.board)
    host = verify(program, rows=settings.rows)
    board = verify_on_board(program, rows=settings.rows, board=profile)
    if settings.json:
        sys.stdout.write(json.dumps({"host": asdict(host), "board": asdict(board)}) + "\n")
        return 0
    table = Table("what", "measured", title=f"{program.name} on the host and on {board.board}")
    table.add_row("observations compared bit for bit", f"{host.rows} host, {board.rows} board")
    table.add_row("kept, corrected, fallback", _statuses(host.rows, host.corrected, host.fallbacks))
    table.add_row("flash", f"{board.flash_bytes} B")
    table.add_row("RAM", f"{board.ram_bytes} B")
    table.add_row("stack bound, used", f"{board.stack_bound_bytes}, {board.stack_used_bytes} B")
    mean, largest = board.instructions_mean, board.instructions_max
    table.add_row(f"{board.counts} per step", f"{mean:.0f} mean, {largest:.0f} largest")
    Console().print(table, highlight=False)
    return 0


def _statuses(rows: int, corrected: int, fallbacks: int) -> str:
    return f"{rows - corrected - fallbacks}, {corrected}, {fallbacks}"

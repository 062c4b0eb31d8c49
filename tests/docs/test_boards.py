"""The page of the boards lists each one with the memory and the tools of its profile."""

from pathlib import Path

import pytest

from safectl_hardware.board import board_names, load_board

PAGE = Path(__file__).parents[2] / "docs" / "boards.md"


@pytest.mark.parametrize("name", board_names())
def test_the_page_shows_the_profile(name):
    board = load_board(name)
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[1:] == [
        board.summary,
        f"{board.flash.size / 1024:g} KiB",
        f"{board.ram.size / 1024:g} KiB",
        board.emulation.tool if board.emulation else "none",
        "yes" if board.serial else "none",
        ", ".join(board.programmers) or "none",
    ]

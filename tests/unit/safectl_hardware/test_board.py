import pytest

from safectl.errors import ConfigError, UnknownNameError
from safectl_hardware.board import DEFAULT_BOARD, board_names, load_board, parse_board

MINIMAL = """
summary = "a board"
port = "cortex_m"
toolchain = "arm-none-eabi"
target = []
clock_hz = 1_000_000
flash = {origin = 0, size = 4096}
ram = {origin = 0x20000000, size = 1024}
"""


def test_every_profile_is_readable_and_its_memory_does_not_overlap():
    assert DEFAULT_BOARD in board_names()
    for name in board_names():
        board = load_board(name)
        assert board.name == name
        assert board.flash.size > 0 < board.ram.size
        flash = range(board.flash.origin, board.flash.origin + board.flash.size)
        assert board.ram.origin not in flash
        assert board.clock_hz >= 1e6


def test_an_unknown_board_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="did you mean 'mps2-an386'") as caught:
        load_board("mps2-an368")
    assert caught.value.known == board_names()


def test_a_minimal_profile_has_no_emulator_and_no_programmer():
    board = parse_board("mine", MINIMAL)
    assert board.emulation is None
    assert board.programmers == {}
    assert board.library_stack_bytes == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (MINIMAL.replace("port =", "prot ="), "port"),
        (MINIMAL.replace("1_000_000", '"fast"'), "clock_hz"),
        (MINIMAL + "emulation = {tool = 'bochs', machine = '', counter_hz = 1.0}", "tool"),
        ("summary =", "TOML|Invalid value"),
    ],
)
def test_a_damaged_profile_is_refused_by_name(text, named):
    with pytest.raises(ConfigError, match=f"(?s)board mine.*({named})"):
        parse_board("mine", text)

"""The same program on every board profile: equal bits where it is emulated, a fit where not."""

from dataclasses import replace

import pytest

from safectl.errors import DoesNotFit, VerificationError
from safectl_hardware.board import Memory, board_names, load_board
from safectl_hardware.image import build_image
from safectl_hardware.verify import verify_on_board

EMULATED = [name for name in board_names() if load_board(name).emulation is not None]
OTHERS = [name for name in board_names() if name not in EMULATED]
WITHOUT_COMPILER = "esp32"


@pytest.mark.parametrize("name", EMULATED)
def test_an_emulated_board_equals_the_interpreter_within_its_stack_bound(name, small_guarded):
    report = verify_on_board(small_guarded, board=load_board(name), rows=40)
    assert report.board == name
    assert report.rows == 40
    assert 0 < report.stack_used_bytes <= report.stack_bound_bytes
    assert report.instructions_max > 1000


@pytest.mark.parametrize("name", [name for name in OTHERS if name != WITHOUT_COMPILER])
def test_a_board_without_emulator_links_against_its_memory_map(name, small_guarded, tmp_path):
    board = load_board(name)
    image = build_image(small_guarded, tmp_path / "build", board=board)
    assert 0 < image.flash_bytes < 8192
    with pytest.raises(VerificationError, match=f"no emulator models {name}"):
        verify_on_board(small_guarded, board=board)


def test_a_board_without_a_packaged_compiler_says_what_it_needs(small_guarded, tmp_path):
    with pytest.raises(VerificationError, match="xtensa-esp32-elf-gcc, which Debian does not hold"):
        build_image(small_guarded, tmp_path / "build", board=load_board(WITHOUT_COMPILER))


def test_a_program_larger_than_flash_is_refused_with_the_numbers(guarded, tmp_path):
    board = replace(load_board("netduinoplus2"), flash=Memory(0x08000000, 32 * 1024))
    with pytest.raises(DoesNotFit, match="FLASH") as caught:
        build_image(guarded, tmp_path / "build", board=board)
    assert caught.value.available == 32 * 1024
    assert caught.value.needed > 45_000


def test_a_stack_that_has_no_room_in_ram_is_refused(small_guarded, tmp_path):
    board = replace(load_board("netduinoplus2"), ram=Memory(0x20000000, 1024))
    with pytest.raises(DoesNotFit, match="RAM"):
        build_image(small_guarded, tmp_path / "build", board=board)

"""The same program on every board profile: equal bits where it is emulated, a fit where not."""

from dataclasses import replace

import pytest

from safectl.errors import DoesNotFit, VerificationError
from safectl_hardware.board import Memory, board_names, load_board
from safectl_hardware.image import build_image
from safectl_hardware.stack import stack_bound, stack_sum
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
    with pytest.raises(DoesNotFit, match="of flash") as caught:
        build_image(guarded, tmp_path / "build", board=board)
    assert caught.value.available == 32 * 1024
    assert caught.value.needed > 45_000


def test_a_stack_that_has_no_room_in_ram_is_refused(small_guarded, tmp_path):
    board = replace(load_board("netduinoplus2"), ram=Memory(0x20000000, 512))
    with pytest.raises(DoesNotFit, match="of RAM"):
        build_image(small_guarded, tmp_path / "build", board=board)


def test_a_network_too_large_for_an_avr_is_refused_with_the_numbers(benchmark_policy, tmp_path):
    board = load_board("atmega328p")
    with pytest.raises(DoesNotFit, match="atmega328p has 2,048 B") as caught:
        build_image(benchmark_policy.program, tmp_path / "build", board=board)
    assert caught.value.needed > 3000


def test_the_stack_without_a_call_graph_is_the_sum_of_all_frames():
    usage = "f.c:1:1:step\t42\tstatic\nf.c:9:1:dense\t54\tstatic\n"
    both = frozenset({"step", "dense"})
    assert stack_sum([usage, usage], both, library_bytes=10) == 2 * (42 + 54 + 8) + 10
    assert stack_sum([usage], frozenset({"step"}), library_bytes=0) == 42 + 4
    varying = usage.replace("54\tstatic", "54\tdynamic")
    with pytest.raises(VerificationError, match="dense has a stack frame that is dynamic"):
        stack_sum([varying], both, library_bytes=0)
    assert stack_sum([varying], frozenset({"step"}), library_bytes=0) == 42 + 4


def test_library_routines_take_what_the_profile_says():
    node = 'node: { title: "a" label: "a\\nf.c:1:1\\n8 bytes (static)" }'
    edge = 'edge: { sourcename: "a" targetname: "__aeabi_fmul" }'
    assert stack_bound([node, edge], "a", library_bytes=64) == 72
    with pytest.raises(VerificationError, match="__aeabi_fmul is not known"):
        stack_bound([node, edge], "a")

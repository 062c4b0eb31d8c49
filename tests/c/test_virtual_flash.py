"""Flashing itself, on an emulated board with empty flash behind a debugger."""

import json

import numpy as np
import pytest

from safectl.errors import BridgeError, FlashError
from safectl.export import save_program
from safectl_agents.cli import main
from safectl_hardware.board import load_board
from safectl_hardware.controller import SerialController
from safectl_hardware.flash import flash, flash_plan
from safectl_hardware.port import serial_port
from safectl_hardware.release import FIRMWARE, load_release, write_release
from safectl_hardware.virtual import VirtualBoard

BOARD = "netduinoplus2"
WAIT_S = 30.0


@pytest.fixture(scope="module")
def release(small_guarded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    save_program(small_guarded, folder / "program")
    write_release(small_guarded, load_board(BOARD), folder)
    return folder


def test_a_release_knows_its_sizes_before_it_is_flashed(release, small_guarded):
    facts = load_release(release)
    assert facts.board == BOARD
    assert 4_000 < facts.flash_bytes < 10_000
    assert 1_000 < facts.ram_bytes < 4_000
    assert facts.program_digest == small_guarded.digest()


def test_an_empty_board_is_flashed_verified_and_runs(release, small_guarded, capsys):
    with VirtualBoard(load_board(BOARD)) as virtual:
        words = ["flash", str(release), "--tool", "gdb", "--port", virtual.gdb]
        assert main([*words, "--serial", virtual.port]) == 0
        said = capsys.readouterr().out
        assert "gdb-multiarch -nx -batch" in said
        assert "passed its self-test" in said
        controller = SerialController(serial_port(virtual.port), small_guarded, patience_s=WAIT_S)
        with controller as board:
            assert np.isfinite(board.step(np.zeros(3, np.float32)).action).all()


def test_a_tampered_image_is_flashed_but_refused_at_boot(release, small_guarded, tmp_path):
    data = bytearray((release / FIRMWARE).read_bytes())
    at = data.find(small_guarded.constants["signal_0_bias"].tobytes())
    data[at] ^= 1
    image = tmp_path / "tampered.elf"
    image.write_bytes(data)
    board = load_board(BOARD)
    with VirtualBoard(board) as virtual:
        with flash_plan(board, image, tool="gdb", port=virtual.gdb) as plan:
            flash(plan)
        with (
            pytest.raises(BridgeError, match="self-test"),
            SerialController(serial_port(virtual.port), small_guarded),
        ):
            pass


def test_a_board_that_stays_empty_is_not_verified(release, tmp_path):
    board = load_board(BOARD)
    with (
        VirtualBoard(board) as virtual,
        flash_plan(board, release / FIRMWARE, tool="gdb", port=virtual.gdb) as plan,
    ):
        loading = next(i for i, word in enumerate(plan.commands[0]) if word == "load")
        command = (
            *plan.commands[0][:loading],
            "info registers pc",
            *plan.commands[0][loading + 1 :],
        )
        without_load = type(plan)(plan.programmer, plan.job, (command,))
        with pytest.raises(FlashError, match="does not hold what was written"):
            flash(without_load)


def test_the_command_refuses_what_does_not_belong_together(release, tmp_path, capsys):
    def said(*words):
        assert main(["flash", *map(str, words)]) == 1
        return capsys.readouterr().err

    assert "exported for netduinoplus2, not mps2-an386" in said(release, "--board", "mps2-an386")
    assert "name the board of this image" in said(release / FIRMWARE)
    assert "name the folder" in said()
    assert "board.json" in said(tmp_path)
    facts = json.loads((release / "board.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "program").symlink_to(release / "program")
    (other / FIRMWARE).symlink_to(release / FIRMWARE)
    (other / "board.json").write_text(json.dumps(facts | {"program_digest": 1}))
    assert "digests" in said(other)
    (other / "board.json").write_text(
        json.dumps(facts | {"board": "teensy41", "is_firmware": False})
    )
    assert "compile" in said(other)


def test_a_dry_run_prints_the_commands_and_runs_nothing(release, capsys):
    assert main(["flash", str(release), "--tool", "openocd", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("openocd -f interface/stlink.cfg")

"""Images in Intel HEX: what they write, what is refused, and what flashing one claims."""

import json
import os
from contextlib import nullcontext

import pytest

from safectl.errors import ConfigError, DoesNotFit, FileFormatError
from safectl_agents.cli import main
from safectl_hardware.board import load_board
from safectl_hardware.flash import flash_plan


def record(kind, address, data):
    body = bytes([len(data), *address.to_bytes(2, "big"), kind]) + data
    return f":{(body + bytes([-sum(body) % 256])).hex().upper()}\n"


def hex_file(parts, end=True):
    """Intel HEX of pieces, each behind a record with the upper half of its address."""
    text = "".join(record(4, 0, high.to_bytes(2, "big")) + record(0, 0, x) for high, x in parts)
    return text + record(1, 0, b"") * end


@pytest.mark.parametrize(
    ("board", "parts", "error", "message"),
    [
        ("teensy41", [(0x6000, bytes(16))], None, ""),
        ("atmega328p", [(0, bytes(64))], None, ""),
        ("atmega328p", [(0, bytes(64)), (1, bytes(1))], DoesNotFit, "65,537 B of flash"),
        ("teensy41", [(0x6000, bytes(16)), (0x6100, bytes(1))], DoesNotFit, "of flash"),
        ("teensy41", [(0, bytes(16))], ConfigError, "begins at 0x60000000"),
        ("teensy41", [], FileFormatError, "holds no data"),
    ],
)
def test_a_hex_image_must_lie_within_the_flash(board, parts, error, message, tmp_path):
    image = tmp_path / "image.hex"
    image.write_text(hex_file(parts))
    expected = pytest.raises(error, match=message) if error else nullcontext()
    with expected, flash_plan(load_board(board), image, port="/dev/ttyUSB0") as plan:
        assert plan.job.files == {"hex": image}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (":00000001FE\n", "in line 1"),
        (":0400000000\n", "in line 1"),
        ("no record\n", "in line 1"),
        (hex_file([(0, bytes(4))], end=False), "has no end record"),
    ],
)
def test_a_damaged_hex_image_is_refused(text, message, tmp_path):
    image = tmp_path / "image.hex"
    image.write_text(text)
    with (
        pytest.raises(FileFormatError, match=message),
        flash_plan(load_board("atmega328p"), image, port="/dev/ttyUSB0"),
    ):
        pass


def test_the_command_claims_no_flash_that_nobody_verified(capsys, tmp_path, monkeypatch):
    tool = tmp_path / "teensy_loader_cli"
    tool.write_text("#!/bin/sh\necho Booting\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    image = tmp_path / "image.hex"
    image.write_text(hex_file([(0x6000, bytes(4))]))
    assert main(["flash", str(image), "--board", "teensy41"]) == 0
    assert "was sent to teensy41, not verified" in capsys.readouterr().out
    assert main(["flash", str(image), "--board", "teensy41", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is False
    assert main(["flash", str(image), "--board", "teensy41", "--serial", "/dev/nowhere"]) == 1
    assert "--serial needs a folder" in capsys.readouterr().err

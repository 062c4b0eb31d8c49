"""Flashing without a board: argument lists, fake tools first on the path, real tools alone."""

import os
import select
import struct
import subprocess
import sys
import threading
import time
import tty
from dataclasses import replace

import pytest

from safectl.errors import ConfigError, DoesNotFit, FlashError, UnknownNameError
from safectl_hardware import flash as flashing
from safectl_hardware.board import Memory, board_names, load_board
from safectl_hardware.flash import flash
from safectl_hardware.programmer import cause_of
from safectl_hardware.programmers import PROGRAMMERS, find_programmer

GOLDEN = {
    ("netduinoplus2", "dfu-util"): [
        "dfu-util -d 0483:df11 -a 0 -s 0x08000000 -D {bin}",
        "dfu-util -d 0483:df11 -a 0 -s 0x08000000:64:leave -U {readback}",
    ],
    ("netduinoplus2", "openocd"): [
        (
            "openocd -f interface/stlink.cfg -f target/stm32f4x.cfg"
            " -c 'program {{{elf}}} verify reset exit'"
        ),
    ],
    ("feather-stm32f405", "pyocd"): [
        "pyocd flash -W -t stm32f405rgtx -e sector {elf}",
        "pyocd commander -W -t stm32f405rgtx -c 'compare 0x8000000 {bin}'",
    ],
    ("nrf52840dk", "pyocd"): [
        "pyocd flash -W -t nrf52840 -e sector {elf}",
        "pyocd commander -W -t nrf52840 -c 'compare 0x0 {bin}'",
    ],
    ("raspberry-pi-pico", "picotool"): ["picotool load -v -x {elf} -t elf"],
    ("teensy41", "teensy_loader_cli"): ["teensy_loader_cli --mcu=TEENSY41 -v {hex}"],
    ("esp32-c3", "esptool"): [
        (
            "esptool --chip esp32c3 --port /dev/ttyUSB0 --baud 460800 --connect-attempts 3"
            " write-flash 0x10000 {bin}"
        ),
    ],
    ("atmega328p", "avrdude"): [
        "avrdude -p m328p -c arduino -P /dev/ttyUSB0 -b 115200 -U flash:w:{hex}:i"
    ],
    ("netduinoplus2", "gdb"): [
        (
            "gdb-multiarch -nx -batch -ex 'set confirm off' -ex 'set tcp connect-timeout 5'"
            " -ex 'target remote /dev/ttyUSB0' -ex load -ex compare-sections"
            " -ex 'monitor system_reset' -ex detach {elf}"
        ),
    ],
}
WAITS = {"teensy_loader_cli": "-w", "picotool": "-F"}
"""Options that would make a tool wait for a person; `pyocd` waits unless -W is given."""


FAKE_OBJCOPY = """
import struct, sys
option, source, target = sys.argv[1:]
data = open(source, "rb").read()
if option == "ihex":
    (start,) = struct.unpack("<I", data[4:8])
    def record(kind, address, payload):
        body = bytes([len(payload), address >> 8, address & 255, kind]) + payload
        return ":" + (body + bytes([-sum(body) & 255])).hex().upper()
    lines = []
    for at in range(0, len(data), 16):
        high, low = divmod(start + at, 65536)
        lines += [record(4, 0, high.to_bytes(2, "big")), record(0, low, data[at : at + 16])]
    data = "\\n".join([*lines, record(1, 0, b"")]).encode()
open(target, "wb").write(data)
"""


def flash_plan(board, image, **options):
    """Plan, with a fake ELF file placed where the flash of the board begins."""
    if image.exists() and image.read_bytes()[:4] == b"\x7fELF" and image.stat().st_size == 64:
        image.write_bytes(b"\x7fELF" + struct.pack("<I", board.flash.origin) + bytes(56))
    return flashing.flash_plan(board, image, **options)


@pytest.fixture
def elf(tmp_path):
    """A file that looks like an ELF; the converters of the toolchain are faked."""
    path = tmp_path / "firmware.elf"
    path.write_bytes(b"\x7fELF" + bytes(60))
    return path


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Return a function that puts a fake program first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def fake(name, *, status=0, says="", sleeps=False, copies=""):
        script = f'#!/bin/sh\necho "$@" >> {folder}/{name}.argv\n'
        script += "for last; do :; done\n"
        script += f'case "$*" in *" -U "*) cp {copies} "$last";; esac\n' if copies else ""
        script += f"cat <<'END'\n{says}\nEND\n"
        script += "sleep 60\n" if sleeps else f"exit {status}\n"
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
        return folder / f"{name}.argv"

    script = folder / "objcopy.py"
    script.write_text(FAKE_OBJCOPY)
    for prefix in ("arm-none-eabi", "riscv64-unknown-elf", "avr"):
        copier = folder / f"{prefix}-objcopy"
        copier.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$2" "$3" "$4"\n')
        copier.chmod(0o755)
    return fake


@pytest.mark.parametrize(("board", "tool"), GOLDEN, ids=["-".join(pair) for pair in GOLDEN])
def test_the_commands_are_the_golden_ones_and_never_wait(board, tool, elf, tools):
    with flash_plan(load_board(board), elf, tool=tool, port="/dev/ttyUSB0") as plan:
        places = {name: str(path) for name, path in plan.job.files.items()}
        expected = [
            line.format(**places, readback=plan.job.readback) for line in GOLDEN[board, tool]
        ]
        assert str(plan).splitlines() == expected
        for command in plan.commands:
            assert WAITS.get(tool) not in command
            assert tool != "pyocd" or "-W" in command


def test_every_profile_names_only_tools_that_exist_with_their_options():
    for name in board_names():
        board = load_board(name)
        for tool in board.programmers:
            programmer, options = find_programmer(board, tool)
            assert set(programmer.needs) <= set(options)
    flashable = {tool for name in board_names() for tool in load_board(name).programmers}
    assert flashable == set(PROGRAMMERS)


def test_the_first_tool_of_the_profile_is_the_default(elf, tools):
    with flash_plan(load_board("nrf52840dk"), elf) as plan:
        assert plan.programmer.tool == "pyocd"


def test_unknown_tools_boards_without_one_and_missing_ports_are_refused(elf, tools):
    with pytest.raises(UnknownNameError, match="flashing tool for nrf52840dk"):
        find_programmer(load_board("nrf52840dk"), "dfu-util")
    with pytest.raises(ConfigError, match="names no flashing tool"):
        find_programmer(load_board("mps2-an386"))
    damaged = replace(load_board("nrf52840dk"), programmers={"pyocd": {}})
    with pytest.raises(ConfigError, match=r"lacks pyocd\.target"):
        find_programmer(damaged)
    with (
        pytest.raises(ConfigError, match="needs --port"),
        flash_plan(load_board("esp32-c3"), elf),
    ):
        pass


def test_images_that_are_missing_too_large_or_of_another_format_are_refused(elf, tools, tmp_path):
    board = load_board("netduinoplus2")
    with pytest.raises(ConfigError, match="does not exist"), flash_plan(board, tmp_path / "no.elf"):
        pass
    small = replace(board, flash=Memory(0x08000000, 63))
    with pytest.raises(DoesNotFit, match="64 B of flash"), flash_plan(small, elf):
        pass
    (tmp_path / "image.bin").write_bytes(bytes(64))
    with flash_plan(board, tmp_path / "image.bin", tool="dfu-util") as plan:
        assert plan.job.files == {"bin": tmp_path / "image.bin"}
    with (
        pytest.raises(DoesNotFit),
        flash_plan(small, tmp_path / "image.bin", tool="dfu-util"),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="the tool takes elf"),
        flash_plan(board, tmp_path / "image.bin", tool="openocd"),
    ):
        pass


@pytest.mark.parametrize(
    ("board", "tool", "address", "problem"),
    [
        ("netduinoplus2", "dfu-util", 0x0, "build it for this board"),
        ("netduinoplus2", "openocd", 0x0, "build it for this board"),
        ("raspberry-pi-pico", "picotool", 0x08000000, "build it for this board"),
        ("netduinoplus2", "dfu-util", 0x08004000, "choose another tool"),
        ("feather-stm32f405", "pyocd", 0x08004000, "choose another tool"),
    ],
)
def test_an_image_of_another_chip_is_refused(elf, tools, board, tool, address, problem):
    elf.write_bytes(b"\x7fELF" + struct.pack("<I", address) + bytes(56))
    with (
        pytest.raises(ConfigError, match=problem),
        flashing.flash_plan(load_board(board), elf, tool=tool),
    ):
        pass


def test_an_image_that_reaches_beyond_the_flash_is_refused(elf, tools):
    board = load_board("netduinoplus2")
    last = board.flash.origin + board.flash.size - 32
    elf.write_bytes(b"\x7fELF" + struct.pack("<I", last) + bytes(56))
    with pytest.raises(DoesNotFit), flashing.flash_plan(board, elf, tool="openocd"):
        pass


def test_a_tool_that_succeeds_with_its_proof_is_believed(elf, tools):
    recorded = tools("openocd", says="** Verified OK **")
    said = []
    with flash_plan(load_board("netduinoplus2"), elf, tool="openocd") as plan:
        flash(plan, report=said.append)
    assert said == [str(plan)]
    assert recorded.read_text().startswith("-f interface/stlink.cfg")


def test_picotool_is_believed_when_it_verified(elf, tools):
    bar = "[==============================]  100%"
    tools("picotool", says=f"Loading into Flash: {bar}\nVerifying Flash:    {bar}\n  OK")
    with flash_plan(load_board("raspberry-pi-pico"), elf, tool="picotool") as plan:
        flash(plan)
        assert plan.programmer.verifies


def test_only_the_loader_of_a_teensy_proves_nothing():
    assert [name for name in PROGRAMMERS if not PROGRAMMERS[name].verifies] == ["teensy_loader_cli"]


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        ("openocd", "** Programming Finished **"),
        ("picotool", "Loading into Flash: [==============================]  100%\nOK"),
        ("pyocd", "Mismatched byte at 0x08000004 (offset 0x4): 0x00 (memory) != 0x01 (file)"),
        ("gdb", 'Section .text, range 0x8000000 -- 0x8001ef8: MIS-MATCHED!\n".data": matched.'),
        ("gdb", "Connection refused."),
        ("gdb", "Section .text, range 0x8000000 -- 0x8001ef8: matched."),
    ],
)
def test_a_tool_that_succeeds_without_proof_is_not_believed(elf, tools, tool, says):
    tools(PROGRAMMERS[tool].tool, says=says)
    board = "raspberry-pi-pico" if tool == "picotool" else "netduinoplus2"
    with (
        flash_plan(load_board(board), elf, tool=tool, port="localhost:1") as plan,
        pytest.raises(FlashError) as caught,
    ):
        flash(plan)
    assert caught.value.status == 0


def test_flash_that_is_read_back_must_equal_the_image(elf, tools, tmp_path):
    tools("dfu-util", copies=elf)
    with flash_plan(load_board("netduinoplus2"), elf, tool="dfu-util") as plan:
        flash(plan)
    other = tmp_path / "other.bin"
    other.write_bytes(elf.read_bytes()[:-1] + b"\1")
    tools("dfu-util", copies=other)
    with (
        flash_plan(load_board("netduinoplus2"), elf, tool="dfu-util") as plan,
        pytest.raises(FlashError, match="equals the image in 63 of 64 B"),
    ):
        flash(plan)


@pytest.mark.parametrize(
    ("tool", "board", "status", "says", "cause"),
    [
        ("pyocd", "nrf52840dk", 1, "No connected debug probes", "no debug probe"),
        ("pyocd", "nrf52840dk", 1, "Target type x not recognized", "pyocd pack install"),
        ("esptool", "esp32-c3", 2, "Could not open /dev/ttyUSB0", "does not open"),
        ("esptool", "esp32-c3", 2, "Invalid head of packet", "none of this chip"),
        ("openocd", "netduinoplus2", 1, "Error: open failed", "no debug probe"),
        ("openocd", "netduinoplus2", 1, "** Verify Failed **", "does not hold"),
        ("dfu-util", "netduinoplus2", 74, "No DFU capable USB device available", "no device"),
        ("dfu-util", "netduinoplus2", 74, "Error during download", "broke off"),
        ("avrdude", "atmega328p", 1, "stk500_getsync(): not in sync", "does not open"),
        ("avrdude", "atmega328p", 1, "verification error, first mismatch", "does not hold"),
        ("picotool", "raspberry-pi-pico", 249, "", "no device"),
        ("picotool", "raspberry-pi-pico", 245, "", "does not hold"),
        ("teensy_loader_cli", "teensy36", 1, "Unable to open device (hint: try -w)", "no device"),
        ("openocd", "netduinoplus2", 255, "what", "exit status 255"),
    ],
)
def test_every_exit_status_has_its_meaning(tool, board, status, says, cause, elf, tools):
    tools(tool, status=status, says=says)
    with (
        flash_plan(load_board(board), elf, tool=tool, port="/dev/ttyUSB0") as plan,
        pytest.raises(FlashError, match=cause) as caught,
    ):
        flash(plan)
    assert caught.value.status == status
    assert caught.value.tool == tool
    if says:
        assert says[:20] in str(caught.value)


def test_a_tool_that_hangs_is_killed_with_its_children(elf, tools):
    tools("openocd", sleeps=True)
    began = time.monotonic()
    with (
        flash_plan(load_board("netduinoplus2"), elf, tool="openocd") as plan,
        pytest.raises(FlashError, match=r"longer than 0\.2 s"),
    ):
        flash(plan, timeout_s=0.2)
    assert time.monotonic() - began < 20.0


def is_dead(pid):
    """Whether a process, no child of ours, ends within seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    ended = bool(waiting.poll(5000))
    os.close(descriptor)
    return ended


def test_what_a_tool_left_behind_is_killed_too(elf, tools, tmp_path):
    tools("openocd")
    pid = tmp_path / "pid"
    script = f"#!/bin/sh\nsleep 60 &\necho $! > {pid}\nexit 0\n"
    (tmp_path / "bin" / "openocd").write_text(script)
    with (
        flash_plan(load_board("netduinoplus2"), elf, tool="openocd") as plan,
        pytest.raises(FlashError, match=r"longer than 0\.5 s"),
    ):
        flash(plan, timeout_s=0.5)
    assert is_dead(int(pid.read_text()))


def test_a_tool_that_is_not_installed_says_how_to_get_it(elf, tools, monkeypatch, tmp_path):
    with flash_plan(load_board("raspberry-pi-pico"), elf, tool="picotool") as plan:
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        with pytest.raises(FlashError, match="Raspberry Pi Pico SDK"):
            flash(plan)


@pytest.mark.parametrize(
    ("tool", "board", "port", "status"),
    [
        ("openocd", "netduinoplus2", "", 1),
        ("dfu-util", "netduinoplus2", "", 74),
        ("gdb", "netduinoplus2", "/nowhere/gdb", None),
        pytest.param("pyocd", "nrf52840dk", "", 1, marks=pytest.mark.slow),
        pytest.param("esptool", "esp32-c3", "/dev/nowhere", 2, marks=pytest.mark.slow),
    ],
)
def test_real_tools_without_a_device_fail_with_our_words(tool, board, port, status, tmp_path):
    image = tmp_path / "image.bin"
    image.write_bytes(bytes(64))
    if "bin" not in PROGRAMMERS[tool].formats or len(PROGRAMMERS[tool].formats) > 1:
        source = tmp_path / "image.s"
        source.write_text(".text\n.globl _start\n_start: .word 1, 2, 3, 4\n")
        image = tmp_path / "image.elf"
        place = f"-Wl,-Ttext={load_board(board).flash.origin:#x}"
        command = ["arm-none-eabi-gcc", "-nostdlib", place, source, "-o", image]
        subprocess.run(command, check=True, timeout=60)
    with (
        flash_plan(load_board(board), image, tool=tool, port=port) as plan,
        pytest.raises(FlashError) as caught,
    ):
        flash(plan, timeout_s=60.0)
    if status is not None:
        assert caught.value.status == status
    assert caught.value.cause.startswith(("no ", "the serial port does not open"))


SYNC, SECURITY = 0x08, 0x14  # commands of the boot loader in the ROM of Espressif's chips
ESP32_S3 = struct.pack("<IBx6xII", 0, 0, 9, 0)  # flags, counter, key purposes, chip, interface


class EspRom:
    """The end of a serial line where a boot loader answers some commands; a context manager."""

    def __init__(self, answers):
        self._answers = answers
        self.commands = []

    def __enter__(self):
        self._own, self._other = os.openpty()
        tty.setraw(self._own)
        tty.setraw(self._other)
        self.port = os.ttyname(self._other)
        self._ends, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        os.write(self._stop, b"x")
        self._thread.join()
        for descriptor in (self._own, self._other, self._ends, self._stop):
            os.close(descriptor)

    def _serve(self):
        heard = b""
        while self._ends not in select.select([self._own, self._ends], [], [])[0]:
            heard += os.read(self._own, 4096)
            while heard.count(b"\xc0") >= 2:
                _, packet, heard = heard.split(b"\xc0", 2)
                command = packet[1]
                self.commands.append(command)
                if command in self._answers:
                    data = self._answers[command] + bytes(4)
                    head = struct.pack("<BBHI", 1, command, len(data), 0x20120707)
                    os.write(self._own, (b"\xc0" + head + data + b"\xc0") * 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        ({}, "the serial port does not open or nothing answers"),
        ({SYNC: b""}, "the serial port does not open or nothing answers"),
        ({SYNC: b"", SECURITY: ESP32_S3}, "another chip answers"),
    ],
    ids=["silent", "silent after the first command", "another chip"],
)
def test_esptool_on_a_serial_line_says_what_answered(answers, cause, elf, tools, tmp_path):
    image = tmp_path / "image.bin"
    image.write_bytes(b"\xe9" + bytes(63))
    with (
        EspRom(answers) as rom,
        flash_plan(load_board("esp32-c3"), image, port=rom.port) as plan,
        pytest.raises(FlashError, match=cause) as caught,
    ):
        flash(plan, timeout_s=60.0)
    assert caught.value.status == 2
    assert set(rom.commands) >= {SYNC, *answers}


@pytest.mark.slow
def test_esptool_that_still_tries_is_stopped_at_our_limit(elf, tools, tmp_path):
    image = tmp_path / "image.bin"
    image.write_bytes(b"\xe9" + bytes(63))
    with (
        EspRom({}) as rom,
        flash_plan(load_board("esp32-c3"), image, port=rom.port) as plan,
        pytest.raises(FlashError, match=r"longer than 0\.1 s"),
    ):
        flash(plan, timeout_s=0.1)


def test_a_cause_that_is_not_known_is_the_bare_status():
    assert cause_of(PROGRAMMERS["openocd"], 3, "") == "the tool failed with exit status 3"

"""The flashing tools that we know, and which one flashes a board."""

import shlex
from collections.abc import Mapping

from safectl.errors import ConfigError, UnknownNameError
from safectl_hardware.board import Board
from safectl_hardware.programmer import Cause, Job, Programmer


def find_programmer(board: Board, tool: str = "") -> tuple[Programmer, Mapping[str, str]]:
    """Return a tool and its options for a board; the board's first one where none is named.

    Raises:
        ConfigError: If the profile names no tool, or lacks an option of this one.
        UnknownNameError: If the board cannot be flashed by it.
    """
    known = list(board.programmers)
    if not known:
        raise ConfigError(f"board {board.name}", "its profile names no flashing tool")
    name = tool or known[0]
    if name not in known or name not in PROGRAMMERS:
        raise UnknownNameError(f"flashing tool for {board.name}", name, known=known)
    programmer, options = PROGRAMMERS[name], board.programmers[name]
    lacking = [option for option in programmer.needs if option not in options]
    if lacking:
        raise ConfigError(f"board {board.name}", f"its profile lacks {name}.{lacking[0]}")
    return programmer, options


def _pyocd(job: Job) -> list[list[str]]:
    target = job.options["target"]
    compare = f"compare {job.board.flash.origin:#x} {shlex.quote(str(job.files['bin']))}"
    return [
        ["flash", "-W", "-t", target, "-e", "sector", str(job.files["elf"])],
        ["commander", "-W", "-t", target, "-c", compare],
    ]


def _esptool(job: Job) -> list[list[str]]:
    chip, baud, address = (job.options[name] for name in ("chip", "baud", "address"))
    connection = ["--chip", chip, "--port", job.port, "--baud", baud, "--connect-attempts", "3"]
    return [[*connection, "write-flash", address, str(job.files["bin"])]]


def _openocd(job: Job) -> list[list[str]]:
    command = f"program {{{job.files['elf']}}} verify reset exit"
    return [["-f", job.options["interface"], "-f", job.options["target"], "-c", command]]


def _dfu_util(job: Job) -> list[list[str]]:
    device = ["-d", job.options["device"], "-a", "0"]
    image, origin = job.files["bin"], f"{job.board.flash.origin:#010x}"
    span = f"{origin}:{image.stat().st_size}:leave"
    return [
        [*device, "-s", origin, "-D", str(image)],
        [*device, "-s", span, "-U", str(job.readback)],
    ]


def _picotool(job: Job) -> list[list[str]]:
    return [["load", "-v", "-x", str(job.files["elf"]), "-t", "elf"]]


def _avrdude(job: Job) -> list[list[str]]:
    part, programmer, baud = (job.options[name] for name in ("part", "programmer", "baud"))
    line = ["-p", part, "-c", programmer, "-P", job.port, "-b", baud]
    return [[*line, "-U", f"flash:w:{job.files['hex']}:i"]]


def _teensy(job: Job) -> list[list[str]]:
    return [[f"--mcu={job.options['mcu']}", "-v", str(job.files["hex"])]]


def _gdb(job: Job) -> list[list[str]]:
    steps = ["set confirm off", "set tcp connect-timeout 5", f"target remote {job.port}", "load"]
    steps += ["compare-sections", f"monitor {job.options['reset']}", "detach"]
    orders = [word for step in steps for word in ("-ex", step)]
    return [["-nx", "-batch", *orders, str(job.files["elf"])]]


_NO_DEVICE = "no device answers: connect it, power it, and bring it to its boot loader"
_NO_PROBE = "no debug probe is connected: connect it, and check the rights to its USB device"
_NO_PORT = "the serial port does not open or nothing answers there: check --port and the cable"
_MISMATCH = "the flash does not hold what was written: flash again, or replace the board"

PROGRAMMERS: Mapping[str, Programmer] = {
    programmer.tool.removesuffix("-multiarch"): programmer
    for programmer in (
        Programmer(
            tool="pyocd",
            source="pip install pyocd",
            formats=("elf", "bin"),
            arguments=_pyocd,
            proofs=("", r"All \d+ bytes match"),
            causes=(
                Cause(1, r"no (connected|available) debug probes|no target device", _NO_PROBE),
                Cause(1, "not recognized", "pyocd lacks the target: pyocd pack install TARGET"),
                Cause(None, "mismatched byte", _MISMATCH),
            ),
            needs=("target",),
        ),
        Programmer(
            tool="esptool",
            source="pip install esptool",
            formats=("bin",),
            arguments=_esptool,
            proofs=("Hash of data verified",),
            causes=(
                Cause(2, r"this chip is", "another chip answers: check --board and the cable"),
                Cause(2, r"could not open|failed to connect|port is correct", _NO_PORT),
                Cause(2, r"invalid|not a valid", "the image is none of this chip: build it again"),
                Cause(2, "", _NO_PORT),
            ),
            needs=("chip", "baud", "address"),
            needs_port=True,
        ),
        Programmer(
            tool="openocd",
            source="apt-get install openocd",
            formats=("elf",),
            arguments=_openocd,
            proofs=(r"\*\* ?Verified OK",),
            causes=(
                Cause(1, r"verify failed", _MISMATCH),
                Cause(1, r"open failed|unable to (find|open)|init failed", _NO_PROBE),
            ),
            needs=("interface", "target"),
        ),
        Programmer(
            tool="dfu-util",
            source="apt-get install dfu-util",
            formats=("bin",),
            arguments=_dfu_util,
            proofs=("", ""),
            causes=(
                Cause(74, r"no dfu capable usb device|cannot open", _NO_DEVICE),
                Cause(74, "", "the transfer broke off: connect the board directly, flash again"),
                Cause(66, "", "dfu-util cannot read the image"),
            ),
            needs=("device",),
            reads_back=True,
        ),
        Programmer(
            tool="picotool",
            source="the Raspberry Pi Pico SDK",
            formats=("elf",),
            arguments=_picotool,
            proofs=(r"(?s)Verifying .*\bOK\b",),
            causes=(  # its errors are negative: -7 no device, -9 connection, -11 verification
                Cause(249, "", _NO_DEVICE),
                Cause(247, "", _NO_DEVICE),
                Cause(245, "", _MISMATCH),
            ),
        ),
        Programmer(
            tool="avrdude",
            source="apt-get install avrdude",
            formats=("hex",),
            arguments=_avrdude,
            proofs=("bytes of flash verified",),
            causes=(
                Cause(1, r"verification (error|mismatch)", _MISMATCH),
                Cause(1, r"can't open device|unable to open|not in sync|not responding", _NO_PORT),
            ),
            needs=("part", "programmer", "baud"),
            needs_port=True,
        ),
        Programmer(
            tool="teensy_loader_cli",
            source="apt-get install teensy-loader-cli",
            formats=("hex",),
            arguments=_teensy,
            proofs=("",),  # its boot loader cannot be read; see `Programmer.verifies`
            causes=(Cause(1, r"unable to open|hint", _NO_DEVICE),),
            needs=("mcu",),
        ),
        Programmer(
            tool="gdb-multiarch",
            source="apt-get install gdb-multiarch",
            formats=("elf",),
            arguments=_gdb,
            proofs=(r"(?s)Transfer rate.*matched\.",),  # unconnected it compares a file with itself
            causes=(
                Cause(None, r"mis-?matched", _MISMATCH),
                Cause(None, r"connection refused|no such file|timed out", _NO_PORT),
            ),
            needs=("reset",),
            needs_port=True,
        ),
    )
}
"""The flashing tools by the name that profiles and `safectl flash --tool` use."""

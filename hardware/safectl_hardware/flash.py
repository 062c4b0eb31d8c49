"""Flashing a board: plan a tool's commands, run them with a time limit, believe only proofs."""

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from safectl.errors import ConfigError, DoesNotFit, FlashError, MissingTool
from safectl.export.toolchain import COMPILE_TIMEOUT_S, find_tool, run_tool
from safectl_hardware.board import Board
from safectl_hardware.intel_hex import Span, hex_span
from safectl_hardware.linker import find_program
from safectl_hardware.programmer import Format, Job, Programmer, cause_of
from safectl_hardware.programmers import find_programmer

FLASH_TIMEOUT_S = 120.0
"""For each run of a tool; a megabyte over a slow line takes less."""

_MISMATCHES = re.compile(r"mis-?matched|MIS-MATCHED", re.IGNORECASE)
_SHOWN_LINES = 4
_KILL_TIMEOUT_S = 5.0  # a killed process that a driver holds does not end


@dataclass(frozen=True, slots=True)
class FlashPlan:
    """What will be run.

    Attributes:
        programmer: The tool.
        job: What is flashed.
        commands: Complete commands in order.
    """

    programmer: Programmer
    job: Job
    commands: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return "\n".join(shlex.join(command) for command in self.commands)


@contextmanager
def flash_plan(board: Board, image: Path, *, tool: str = "", port: str = "") -> Iterator[FlashPlan]:
    """Check an image against a board and yield the commands that flash it.

    Other formats are made of an ELF file in a temporary folder, which lives as long as the context.

    Args:
        board: The board.
        image: ELF file, or a `.bin` or `.hex` for tools that take it.
        tool: Flashing tool; the first one of the board's profile when empty.
        port: Serial port or address of a gdb server, for tools that need one.

    Raises:
        ConfigError: If the image does not exist, has a format that the tool does not take, or a
            port is needed.
        FileFormatError: If a `.hex` file is damaged.
        UnknownNameError: If the board is not flashed by that tool.
        DoesNotFit: If the image is larger than the flash, or reaches beyond it.
    """
    programmer, options = find_programmer(board, tool)
    if programmer.needs_port and not port:
        raise ConfigError("flash", f"{programmer.tool} needs --port, e.g. --port /dev/ttyUSB0")
    if not image.is_file():
        raise ConfigError(str(image), "does not exist; build it with safectl export --board")
    with tempfile.TemporaryDirectory(prefix="safectl-flash-") as name:
        folder = Path(name)
        files = _formats(board, image, folder, programmer.formats)
        job = Job(board, files, options, port, folder / "readback.bin")
        runs = programmer.arguments(job)
        commands = tuple((programmer.tool, *arguments) for arguments in runs)
        yield FlashPlan(programmer, job, commands)


def flash(
    plan: FlashPlan,
    *,
    timeout_s: float = FLASH_TIMEOUT_S,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Run the commands of a plan and verify.

    Args:
        plan: The commands.
        timeout_s: Limit for each command [s]; the tool and what it started are killed then.
        report: Told each command before it runs.

    Raises:
        MissingTool: If the tool is not installed.
        FlashError: If a command fails, takes too long or does not prove that it verified, or the
            flash read back differs.
    """
    programmer = plan.programmer
    try:
        path = find_tool(programmer.tool, "")
    except MissingTool as error:
        raise FlashError(
            programmer.tool, None, f"it is not installed; install it with: {programmer.source}"
        ) from error
    for command, proof in zip(plan.commands, programmer.proofs, strict=True):
        report(shlex.join(command))
        output = _run(programmer, (path, *command[1:]), timeout_s)
        if not re.search(proof, output) or _MISMATCHES.search(output):
            raise FlashError(
                programmer.tool, 0, _explain(programmer, 0, output, "it did not verify the flash")
            )
    if programmer.reads_back:
        _require_readback(programmer, plan.job)


def _run(programmer: Programmer, command: tuple[str, ...], timeout_s: float) -> str:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise FlashError(
            programmer.tool, None, f"it took longer than {timeout_s:g} s and was stopped"
        ) from error
    finally:
        _kill_group(process)
    if process.returncode != 0:
        status = process.returncode
        cause = cause_of(programmer, status, output)
        raise FlashError(programmer.tool, status, _explain(programmer, status, output, cause))
    return output


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a tool with whatever it started, which may outlive it and hold its output open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_TIMEOUT_S)
    if process.stdout is not None:
        process.stdout.close()


def _explain(programmer: Programmer, status: int, output: str, otherwise: str) -> str:
    """Return the cause and the last lines of the tool."""
    known = cause_of(programmer, status, output)
    cause = otherwise if known.startswith("the tool failed") else known
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"{cause}. It said: {' / '.join(lines[-_SHOWN_LINES:]) or 'nothing'}"


def _require_readback(programmer: Programmer, job: Job) -> None:
    wanted = job.files["bin"].read_bytes()
    found = job.readback.read_bytes() if job.readback.exists() else b""
    if found != wanted:
        same = sum(ours == theirs for ours, theirs in zip(wanted, found, strict=False))
        raise FlashError(
            programmer.tool,
            0,
            f"the flash read back equals the image in {same} of {len(wanted)} B; flash again, or "
            "replace the board",
        )


def _formats(
    board: Board, image: Path, folder: Path, needed: tuple[Format, ...]
) -> Mapping[Format, Path]:
    """Return the image in every needed format."""
    is_elf = image.read_bytes()[:4] == b"\x7fELF"
    if not is_elf:
        known: Mapping[str, Format] = {".bin": "bin", ".hex": "hex"}
        given = known.get(image.suffix)
        if given is None or set(needed) != {given}:
            raise ConfigError(
                str(image), f"the tool takes {' and '.join(needed)}; give an ELF file"
            )
        size = image.stat().st_size if given == "bin" else _reach(board, image, hex_span(image))
        _require_fit(board, image, size)
        return {given: image}
    files: dict[Format, Path] = {"elf": image}
    for name, option in (("bin", "binary"), ("hex", "ihex")):
        target = folder / f"{image.stem}.{name}"
        run_tool(
            [find_program(board, "objcopy"), "-O", option, image, target],
            purpose=f"converting {image.name}",
            timeout_s=COMPILE_TIMEOUT_S,
        )
        files["bin" if name == "bin" else "hex"] = target
    span = hex_span(files["hex"])
    _require_fit(board, image, _reach(board, image, span))
    if "bin" in needed and span.start != board.flash.origin:
        problem = f"begins at {span.start:#x}; the tool writes it to {board.flash.origin:#x}"
        raise ConfigError(str(image), f"{problem}, where it would not run; choose another tool")
    return files


def _reach(board: Board, image: Path, span: Span) -> int:
    """Return how far an image reaches into the flash."""
    origin = board.flash.origin
    if span.start < origin:
        problem = f"writes from {span.start:#x} on, but the flash of {board.name} begins at"
        raise ConfigError(str(image), f"{problem} {origin:#x}; build it for this board")
    return span.stop - origin


def _require_fit(board: Board, image: Path, size: int) -> None:
    if size > board.flash.size:
        raise DoesNotFit(image.name, board.name, "flash", needed=size, available=board.flash.size)

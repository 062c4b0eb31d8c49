"""A program on an emulated board, one observation and one action at a time.

QEMU is started once. The board opens two pipes by semihosting and waits in a read; a step costs two
system calls on each side. Time in the emulator is counted in instructions, so figures are
repeatable.
"""

import os
import select
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from safectl.errors import ShapeError, VerificationError
from safectl.export.toolchain import find_tool
from safectl.types import Status
from safectl_hardware.board import Board, Emulation
from safectl_hardware.image import Image

MAGIC = 0x5AFEC0DE
"""First word of every session."""

_PACKAGES = {"qemu-system-arm": "qemu-system-arm", "qemu-system-riscv32": "qemu-system-misc"}
_SHIFT = 6  # one instruction takes 2^6 ns of emulated time: longer than a SysTick of 40 ns
_HELLO_WORDS = 4
_PIPES = ("observations", "replies")


class BoardStep(NamedTuple):
    """Result of one step on the board.

    Attributes:
        action: Shape (nu,), units of the specification.
        status: What became of the proposal.
        margin: Constraint value at the action.
        instructions: Instructions of the step function, with its call; cycles where the emulator
            counts these.
        stack_bytes: Stack it touched, at most 64 above the bound of the image.
    """

    action: Float32[np.ndarray, " nu"]
    status: Status
    margin: float
    instructions: float
    stack_bytes: int


class BoardSteps(NamedTuple):
    """What an image did with many observations, and the size of its state struct."""

    image: Image
    steps: list[BoardStep]
    state_bytes: int


@dataclass(frozen=True, slots=True)
class _Session:
    """What exists while the emulator runs."""

    folder: tempfile.TemporaryDirectory[str]
    process: subprocess.Popen[bytes]
    ended: int  # file descriptor that becomes readable when the process ends
    source: int
    target: int


class Emulator:
    """A running board; a context manager.

    Example: `with Emulator(image) as board: action = board.step(observation).action`

    Raises:
        MissingTool: On entry, if QEMU is not installed.
        VerificationError: On entry or in a step, if the self-test fails, the board stops or does
            not answer in time.
    """

    def __init__(self, image: Image, *, timeout_s: float = 10.0) -> None:
        self._image, self._timeout_s = image, timeout_s
        self._session: _Session | None = None
        self._empty_ticks = 0
        self.state_bytes = 0

    def __enter__(self) -> "Emulator":
        """Start QEMU and wait for the self-test."""
        self._session = _start(self._image)
        try:
            magic, failures, self._empty_ticks, self.state_bytes = (
                int(word) for word in self._receive(_HELLO_WORDS)
            )
            if magic != MAGIC or failures != 0:
                raise VerificationError(
                    f"the self-test of {self._image.program.name} failed on {self._board}: "
                    f"{failures} differences; the image does not match its program"
                )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop QEMU and remove its pipes."""
        session, self._session = self._session, None
        if session is None:
            return
        session.process.kill()
        session.process.wait()
        for descriptor in (session.ended, session.source, session.target):
            os.close(descriptor)
        session.folder.cleanup()

    def step(self, observation: Float32[np.ndarray, " nx"]) -> BoardStep:
        """Send one observation and return what the board computed; any value is allowed.

        A step that fails ends the session: a late reply would answer the next observation.

        Args:
            observation: Shape (nx,), units of the specification; sent as float32.

        Raises:
            ShapeError: If the observation does not fit the specification.
            VerificationError: If the board stopped or does not answer in time.
        """
        spec = self._image.program.spec
        if observation.shape != (spec.nx,):
            raise ShapeError("observation", expected=(spec.nx,), got=observation.shape)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which the board refuses
            sent = np.ascontiguousarray(observation, np.float32)
        try:
            os.write(self._running.source, sent.tobytes())
            words = self._receive(spec.nu + 4)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        floats = words.view(np.float32)
        ticks = int(words[-2]) - self._empty_ticks
        nanoseconds = ticks * 1e9 / require_emulation(self._image.board).counter_hz
        return BoardStep(
            action=floats[: spec.nu],
            status=Status(int(words[spec.nu + 1])),
            margin=float(floats[spec.nu]),
            instructions=nanoseconds / 2**_SHIFT,
            stack_bytes=int(words[-1]),
        )

    @property
    def _board(self) -> str:
        return self._image.board.name

    @property
    def _running(self) -> _Session:
        if self._session is None:
            raise VerificationError(f"{self._board} is not running; use it in a with statement")
        return self._session

    def _receive(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """Wait for `count` words, for the end of the process, or for the time limit."""
        session, data = self._running, b""
        poll = select.poll()
        poll.register(session.target, select.POLLIN)
        poll.register(session.ended, select.POLLIN)
        while len(data) < 4 * count:
            ready = {descriptor for descriptor, _ in poll.poll(1000.0 * self._timeout_s)}
            if session.target in ready:
                data += os.read(session.target, 4 * count - len(data))
            elif ready:
                status = session.process.wait()
                said = Path(session.folder.name, "errors").read_text(errors="replace").strip()
                raise VerificationError(
                    f"{self._board} stopped with status {status} (70: fault, 71: pipes, "
                    f"72: write). {said}"
                )
            else:
                raise VerificationError(
                    f"{self._board} did not answer within {self._timeout_s:g} s"
                )
        return np.frombuffer(data, np.uint32).copy()


def require_emulation(board: Board) -> Emulation:
    """Return how a board is emulated.

    Raises:
        VerificationError: If no emulator models it.
    """
    if board.emulation is None:
        raise VerificationError(
            f"no emulator models {board.name} ({board.summary}); it can be built for, and run on "
            "the board itself"
        )
    return board.emulation


def qemu_command(
    board: Board, image: Path | None, options: Sequence[str], *, shift: int = _SHIFT
) -> list[str]:
    """Return the command that starts QEMU, without a display, counting instructions.

    Args:
        board: The board.
        image: ELF file; None for a board whose flash is empty.
        options: Further options, such as the serial line.
        shift: One instruction takes 2^shift ns of emulated time.

    Raises:
        MissingTool: If QEMU is not installed.
        VerificationError: If QEMU does not model the board.
    """
    emulation = require_emulation(board)
    if emulation.tool not in _PACKAGES:
        raise VerificationError(f"{board.name} is emulated by {emulation.tool}, not by QEMU")
    command = [find_tool(emulation.tool, _PACKAGES[emulation.tool]), "-M", emulation.machine]
    command += ["-display", "none", "-monitor", "none", "-icount", f"shift={shift}"]
    command += ["-semihosting-config", "enable=on,target=native"]
    if emulation.tool == "qemu-system-riscv32":
        command += ["-bios", "none"]
    kernel = [] if image is None else ["-kernel", str(image.resolve())]
    return [*command, *options, *kernel]


def _start(image: Image) -> _Session:
    command = qemu_command(image.board, image.path, ["-serial", "none"])
    folder = tempfile.TemporaryDirectory(prefix="safectl-board-")
    paths = [Path(folder.name, name) for name in _PIPES]
    for path in paths:
        os.mkfifo(path)
    # Open for both directions, so that neither side waits for the other to open.
    source, target = (os.open(path, os.O_RDWR) for path in paths)
    with Path(folder.name, "errors").open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    return _Session(folder, process, os.pidfd_open(process.pid), source, target)

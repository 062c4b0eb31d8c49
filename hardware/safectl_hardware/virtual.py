"""Firmware on an emulated board whose serial line is a pseudo-terminal of this machine."""

import re
import select
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from safectl.errors import VerificationError
from safectl_hardware.board import Board
from safectl_hardware.emulator import qemu_command

_TERMINAL = re.compile(r"char device redirected to (/dev/\S+)")
_START_S = 20.0  # QEMU needs a tenth of a second; the machine may be busy


class VirtualBoard:
    """QEMU running firmware; a context manager. `port` is the name of its serial port.

    Without an image its flash is empty and it waits for a debugger at the address `gdb`, so that it
    can be flashed as a real board is.

    Emulated time is counted in instructions, so the board's clock differs from ours. At 1 ns for
    one it is slower, and a busy machine does not make the board miss its periods.

    Args:
        board: The board.
        image: ELF file; None for a board whose flash is empty.
        shift: One instruction takes 2^shift ns of emulated time.

    Raises:
        MissingTool: On entry, if QEMU is not installed.
        VerificationError: On entry, if QEMU does not model the board or does not start.
    """

    def __init__(self, board: Board, image: Path | None = None, *, shift: int = 0) -> None:
        self._board, self._image, self._shift = board, image, shift
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="safectl-virtual-")
        self.port = ""
        self.gdb = ""

    def __enter__(self) -> "VirtualBoard":
        """Start QEMU and learn the name of the port."""
        options = ["-serial", "pty"]
        if self._image is None:
            self.gdb = str(Path(self._folder.name) / "gdb")
            options += ["-S", "-gdb", f"unix:{self.gdb},server=on,wait=off"]
        command = qemu_command(self._board, self._image, options, shift=self._shift)
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, bufsize=1,
        )  # fmt: skip
        try:
            self.port = self._terminal(time.monotonic() + _START_S)
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
        """Stop QEMU; its port vanishes."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._folder.cleanup()

    def _terminal(self, deadline: float) -> str:
        said = ""
        assert self._process is not None
        assert self._process.stdout is not None
        stream = self._process.stdout
        while time.monotonic() < deadline:
            if not select.select([stream], [], [], deadline - time.monotonic())[0]:
                break
            line = stream.readline()
            said += line
            if found := _TERMINAL.search(line):
                return found[1]
            if not line:
                break
        raise VerificationError(f"the emulator of {self._board.name} did not start: {said.strip()}")

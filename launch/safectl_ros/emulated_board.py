"""An emulated board with robot firmware, behind a fixed name of its serial port.

`emulated_board ROBOT PORT [BOARD]` builds the firmware for the limits of a robot, runs it in QEMU
and links PORT to the board's pseudo-terminal until SIGINT or SIGTERM. The firmware moves as an
integrator of its commands: a test of the line, the limits and the stop, not of a robot's dynamics.
"""

import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from safectl.errors import SafectlError, StorageError
from safectl_hardware.board import load_board
from safectl_hardware.firmware import build_robot
from safectl_hardware.virtual import VirtualBoard
from safectl_ros.robot_file import load_robot

USAGE = "usage: emulated_board ROBOT PORT [BOARD]\n"
BOARD = "mps2-an386"
_SHIFT = 2  # 4 ns for an instruction: fast enough to keep its periods, slow enough for this machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the board and return the exit status, 1 on an error and 2 on a wrong call."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    words = words[: words.index("--ros-args")] if "--ros-args" in words else words
    if len(words) not in (2, 3):
        sys.stderr.write(USAGE)
        return 2
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # they wait for `sigwait`, also while building
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        _run(words[0], Path(words[1]), words[2] if len(words) == 3 else BOARD, ending)
    except SafectlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _run(robot: str, port: Path, board: str, ending: set[signal.Signals]) -> None:
    spec = load_robot(robot).spec
    with tempfile.TemporaryDirectory(prefix="safectl-robot-") as folder:
        firmware = build_robot(spec, Path(folder) / "firmware", board=load_board(board))
        with VirtualBoard(firmware.board, firmware.path, shift=_SHIFT) as virtual:
            _link(port, virtual.port)
            sys.stdout.write(f"{firmware.board.name} on {port}\n")
            sys.stdout.flush()
            signal.sigwait(ending)
            port.unlink(missing_ok=True)


def _link(port: Path, terminal: str) -> None:
    """Make or replace the link; anything else of that name stays."""
    try:
        if port.is_symlink():
            port.unlink()
        port.symlink_to(terminal)
    except OSError as error:
        raise StorageError(port, error.strerror or str(error)) from error


if __name__ == "__main__":
    sys.exit(main())

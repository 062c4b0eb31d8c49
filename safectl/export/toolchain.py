"""Running compilers and compiled programs: with a time limit, with their own words on failure."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from safectl.errors import MissingTool, VerificationError

COMPILE_TIMEOUT_S = 120.0  # a 64-64 controller compiles in under two seconds
_SHOWN = 2000  # characters of a tool's output that go into a message


def find_tool(tool: str, package: str) -> str:
    """Return the path of a program: on the search path, or installed beside this Python.

    Raises:
        MissingTool: With the Debian package that holds it.
    """
    path = shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))
    if path is None:
        raise MissingTool(tool, package)
    return path


def run_tool(command: Sequence[str | Path], *, purpose: str, timeout_s: float) -> str:
    """Run a program to its end and return what it printed, errors last.

    Raises:
        VerificationError: If it fails or takes longer than the limit.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout_s, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise VerificationError(
            f"{purpose} took longer than {timeout_s:g} s and was stopped: {words[0]}"
        ) from error
    if done.returncode != 0:
        output = (done.stderr + done.stdout)[-_SHOWN:].strip()
        raise VerificationError(f"{purpose} failed with status {done.returncode}: {output}")
    return done.stdout + done.stderr

"""A program on an AVR under simavr, many observations in one run.

simavr counts cycles, and it hands a program nothing while it runs: the observations lie in the
image, and a line per observation comes back over the emulated serial line.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from safectl.errors import VerificationError
from safectl.export.program import Array, Program
from safectl.export.toolchain import find_tool, run_tool
from safectl.types import Status
from safectl_hardware.board import Board
from safectl_hardware.emulator import MAGIC, BoardStep, BoardSteps, require_emulation
from safectl_hardware.image import Image, build_image

_ROWS_BYTES = 4096  # of observations in one image, out of the 32 kB of flash
_RUN_TIMEOUT_S = 120.0  # a hundred steps of a small network take a second
_LINE = re.compile(r"\[32m([0-9a-f]+)\.")


def run_batches(
    program: Program, folder: Path, *, board: Board, optimisation: str, observations: Array
) -> BoardSteps:
    """Build and run a program on all observations, in as many images as these need.

    Raises:
        MissingTool: If compiler or emulator are not installed.
        DoesNotFit: If the board is too small.
        VerificationError: If the code does not build or run, or its self-test fails.
    """
    steps: list[BoardStep] = []
    images: list[Image] = []
    state_bytes = 0
    for number, rows in enumerate(_split(observations)):
        image = build_image(
            program,
            folder / f"batch_{number}",
            board=board,
            optimisation=optimisation,
            stored=rows,
        )
        hello, *replies = _run(image)
        if hello[:2] != [MAGIC, 0] or len(replies) != len(rows):
            raise VerificationError(
                f"the self-test of {program.name} failed on {board.name}, or it stopped after "
                f"{len(replies)} of {len(rows)} rows: {hello}"
            )
        steps += [_step(board, program, reply, hello[2]) for reply in replies]
        state_bytes = hello[3]
        images.append(image)
    return BoardSteps(images[0], steps, state_bytes)


def _split(observations: Array) -> Iterator[Array]:
    rows = max(1, _ROWS_BYTES // (4 * observations.shape[1]))
    for start in range(0, len(observations), rows):
        yield np.ascontiguousarray(observations[start : start + rows])


def _run(image: Image) -> list[list[int]]:
    emulation = require_emulation(image.board)
    options = ["-m", emulation.machine, "-f", f"{image.board.clock_hz:.0f}"]
    output = run_tool(
        [find_tool("simavr", "simavr"), *options, image.path],
        purpose=f"running controller {image.program.name} on {image.board.name}",
        timeout_s=_RUN_TIMEOUT_S,
    )
    lines = [found[1] for found in _LINE.finditer(output)]
    if not lines:
        raise VerificationError(f"{image.board.name} printed nothing: {output[-200:]!r}")
    return [[int(line[at : at + 8], 16) for at in range(0, len(line), 8)] for line in lines]


def _step(board: Board, program: Program, words: list[int], empty_ticks: int) -> BoardStep:
    floats = np.array(words, np.uint32).view(np.float32)
    nu = program.spec.nu
    cycles_per_tick = board.clock_hz / require_emulation(board).counter_hz
    return BoardStep(
        action=floats[:nu],
        status=Status(words[nu + 1]),
        margin=float(floats[nu]),
        instructions=(words[nu + 2] - empty_ticks) * cycles_per_tick,
        stack_bytes=words[nu + 3],
    )

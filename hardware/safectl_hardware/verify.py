"""Check a program on an emulated board: equal bits, and what it costs."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safectl.errors import RangeError, VerificationError
from safectl.export.golden import example_observations
from safectl.export.interpret import Steps, replay
from safectl.export.program import Array, Program
from safectl.export.verify import require_same_bits
from safectl_hardware.batch import run_batches
from safectl_hardware.board import Board, load_board
from safectl_hardware.emulator import BoardStep, BoardSteps, Emulator, require_emulation
from safectl_hardware.image import Image, build_image


@dataclass(frozen=True, slots=True)
class BoardReport:
    """What `verify_on_board` measured.

    Attributes:
        board: Name of the board.
        optimisation: Compiler option.
        rows: Observations compared; all equal the interpreter bit for bit.
        flash_bytes: Code and constants of the controller.
        ram_bytes: State struct and static data.
        stack_bound_bytes: Deepest path of the call graph.
        stack_used_bytes: Largest stack that a step touched.
        counts: What the next two count: instructions, or cycles.
        instructions_mean: Mean per step.
        instructions_max: Largest of the rows.
    """

    board: str
    optimisation: str
    rows: int
    flash_bytes: int
    ram_bytes: int
    stack_bound_bytes: int
    stack_used_bytes: int
    counts: str
    instructions_mean: float
    instructions_max: float


def verify_on_board(
    program: Program,
    *,
    observations: Array | None = None,
    rows: int = 1000,
    board: Board | None = None,
    optimisation: str = "-O2",
) -> BoardReport:
    """Build, run in the emulator and compare every row with the interpreter bit for bit.

    Args:
        program: The program.
        observations: Inputs, shape (rows, nx); drawn by `example_observations` when absent.
        rows: How many to draw.
        board: The board; the default one when absent.
        optimisation: Compiler option.

    Raises:
        RangeError: If there is no row to compare.
        ShapeError: If the observations do not fit the specification.
        MissingTool: If the cross compiler or QEMU is not installed.
        DoesNotFit: If flash or RAM of the board is too small.
        VerificationError: If no emulator models the board, the code does not build or run, one bit
            differs, or a step touches more stack than the call graph says.
    """
    board = board or load_board()
    emulation = require_emulation(board)
    if observations is None:
        observations = example_observations(program, max(rows, 0))
    if len(observations) == 0:
        raise RangeError("rows", value=len(observations), expected="at least 1")
    with tempfile.TemporaryDirectory(prefix="safectl-board-") as name:
        run = _run_session if emulation.tool != "simavr" else run_batches
        image, steps, state_bytes = run(
            program,
            Path(name) / "build",
            board=board,
            optimisation=optimisation,
            observations=observations,
        )
    expected = replay(program, observations)
    require_same_bits(program, expected, _batch(steps), where=f"C on {board.name}")
    counts = [step.instructions for step in steps]
    used = max(step.stack_bytes for step in steps)
    _require_bounded(image, used)
    return BoardReport(
        board=board.name,
        optimisation=optimisation,
        rows=len(steps),
        flash_bytes=image.flash_bytes,
        ram_bytes=image.ram_bytes + state_bytes,
        stack_bound_bytes=image.stack_bytes,
        stack_used_bytes=used,
        counts=emulation.counts,
        instructions_mean=float(np.mean(counts)),
        instructions_max=max(counts),
    )


def _run_session(
    program: Program, folder: Path, *, board: Board, optimisation: str, observations: Array
) -> BoardSteps:
    image = build_image(program, folder, board=board, optimisation=optimisation)
    with Emulator(image) as emulator:
        steps = [emulator.step(row) for row in observations]
        return BoardSteps(image, steps, emulator.state_bytes)


def _require_bounded(image: Image, used: int) -> None:
    if used > image.stack_bytes:
        raise VerificationError(
            f"a step of {image.program.name} on {image.board.name} touched {used} B of stack, its "
            f"call graph says {image.stack_bytes} B; report the compiler and the program"
        )


def _batch(steps: list[BoardStep]) -> Steps:
    return Steps(
        np.stack([step.action for step in steps]),
        np.array([step.margin for step in steps], np.float32),
        np.array([step.status for step in steps], np.int8),
    )

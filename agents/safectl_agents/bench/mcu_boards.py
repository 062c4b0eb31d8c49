"""The benchmarks of boards: equal bits on every emulated core, and a board in the loop."""

from dataclasses import asdict

from safectl.errors import VerificationError
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.bench.hardware_loop import hil_wrong_actions
from safectl_agents.bench.programs import guarded_program
from safectl_hardware.board import board_names, load_board
from safectl_hardware.verify import verify_on_board

_ROWS = 100


def boards_equal() -> Measurement:
    """Count the emulated boards on which a guarded policy equals the interpreter bit for bit."""
    program = guarded_program(nx=3, nu=2, hidden=5)  # fits an ATmega328P
    reports, failures = {}, {}
    for name in board_names():
        board = load_board(name)
        if board.emulation is None:
            continue
        try:
            reports[name] = asdict(verify_on_board(program, board=board, rows=_ROWS))
        except VerificationError as error:
            failures[name] = str(error)
    return Measurement(
        float(len(reports)), details={"seed": 0, "boards": reports, "failures": failures}
    )


BOARDS = (
    Benchmark(
        name="mcu.boards_equal",
        summary="emulated boards on which a guarded policy equals the interpreter bit for bit",
        unit="boards",
        baseline="all of them: Cortex-M0, M4F (two), M7, RV32IMAFC, ATmega328P; 100 rows each",
        target=6.0,
        better="higher",
        measure=boards_equal,
    ),
    Benchmark(
        name="mcu.hil_wrong_actions",
        summary="wrong actions accepted in 10,000 steps, 1 % of frames harmed in each of four ways",
        unit="actions",
        baseline="the interpreter, bit for bit; fails unless silence stops it in two periods",
        target=0.0,
        quick=False,
        measure=hil_wrong_actions,
    ),
)

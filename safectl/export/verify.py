"""Check that the three meanings of a program agree: torch, the interpreter, and C on the host."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError, VerificationError
from safectl.export.emit_c import C_FLAGS, emit_c, fill_template, sources
from safectl.export.golden import example_observations
from safectl.export.interpret import Steps, replay
from safectl.export.program import Array, Program
from safectl.export.toolchain import COMPILE_TIMEOUT_S, find_tool, run_tool

TORCH_TOLERANCE = 1e-5
"""Largest |interpreter - torch| allowed, in units of the action. Both round in float32 but sum in
different orders, and our tanh is off by 5e-7; two layers of 64 give differences near 1e-6. A
projection divides the rounding of the constraint by the gradient of the actions still free to move:
with gradients of 1e-3 differences reach 1e-4, and the caller states that tolerance."""

RUN_TIMEOUT_S = 60.0  # a thousand sanitized steps take well under a second
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` measured.

    Attributes:
        rows: Observations compared; C and the interpreter agree in every bit, or it would raise.
        torch_difference: Largest |interpreter - torch| over actions; None without a reference.
        fallbacks: Rows with `Status.FALLBACK`.
        corrected: Rows with `Status.CORRECTED`.
    """

    rows: int
    torch_difference: float | None
    fallbacks: int
    corrected: int


Reference = Callable[[Float[Tensor, "batch nx"]], Float[Tensor, "batch nu"]]


def verify(
    program: Program,
    *,
    reference: Reference | None = None,
    observations: Array | None = None,
    rows: int = 1000,
    tolerance: float = TORCH_TOLERANCE,
) -> VerifyReport:
    """Compile with sanitizers, run, compare bit for bit; compare the interpreter with torch.

    Args:
        program: The program.
        reference: The torch meaning of the whole step: observations to actions.
        observations: Finite inputs, shape (rows, nx), rounded to float32; drawn by
            `example_observations` when absent.
        rows: How many to draw.
        tolerance: Largest |interpreter - torch| allowed, in units of the action.

    Raises:
        RangeError: If there is no row to compare: that would verify nothing.
        ShapeError: If the observations or the actions of the reference do not fit.
        MissingTool: If there is no C compiler.
        VerificationError: If the code does not build, a sanitizer objects, the self-test fails, one
            bit differs, or torch differs by more than the tolerance.
    """
    if observations is None:
        observations = example_observations(program, max(rows, 0))
    if len(observations) == 0:
        raise RangeError("rows", value=len(observations), expected="at least 1")
    observations = np.ascontiguousarray(observations, np.float32)
    expected = replay(program, observations)
    found = run_host(program, observations)
    require_same_bits(program, expected, found, where="C on this machine")
    difference = None
    if reference is not None:
        with torch.no_grad():
            theirs = reference(torch.from_numpy(observations)).numpy()
        if theirs.shape != expected.action.shape:
            raise ShapeError("reference", expected=expected.action.shape, got=theirs.shape)
        difference = float(np.abs(expected.action.astype(np.float64) - theirs).max())
        if not difference <= tolerance:
            raise VerificationError(
                f"program {program.name}: actions differ from torch by {difference:.3g}, allowed "
                f"{tolerance:g}; check normaliser, layer order and limits"
            )
    return VerifyReport(
        rows=len(observations),
        torch_difference=difference,
        fallbacks=int((expected.status == 2).sum()),
        corrected=int((expected.status == 1).sum()),
    )


def run_host(program: Program, observations: Array) -> Steps:
    """Run the generated C on this machine under address and undefined-behaviour sanitizers.

    Raises:
        MissingTool: If there is no C compiler.
        VerificationError: If the code does not build, run cleanly or pass its self-test.
    """
    with tempfile.TemporaryDirectory(prefix="safectl-verify-") as name:
        folder = Path(name) / "c"
        emit_c(program, folder)
        harness = folder / "harness.c"
        harness.write_text(fill_template("host_harness.c.in", program), encoding="utf-8")
        binary = folder / "harness"
        inputs = [folder / source for source in (*sources(program), f"sf_{program.name}_test.c")]
        run_tool(
            [find_tool("gcc", "gcc"), *C_FLAGS, *SANITIZE, harness, *inputs, "-o", binary],
            purpose=f"compiling controller {program.name}",
            timeout_s=COMPILE_TIMEOUT_S,
        )
        source, target = folder / "observations.bin", folder / "steps.bin"
        source.write_bytes(np.ascontiguousarray(observations, np.float32).tobytes())
        run_tool(
            [binary, source, target],
            purpose=f"running controller {program.name}",
            timeout_s=RUN_TIMEOUT_S,
        )
        return unpack_steps(target.read_bytes(), program.spec.nu)


def unpack_steps(data: bytes, nu: int) -> Steps:
    """Read rows of nu action floats, the margin and the status as a 32-bit integer."""
    words = np.frombuffer(data, np.uint32).reshape(-1, nu + 2)
    floats = words[:, : nu + 1].copy().view(np.float32)
    return Steps(floats[:, :nu], floats[:, nu], words[:, nu + 1].astype(np.int8))


def require_same_bits(program: Program, expected: Steps, found: Steps, *, where: str) -> None:
    """Refuse two results that differ in one bit, naming the first row.

    Raises:
        VerificationError: With the row, both actions and both states.
    """
    if len(found.action) != len(expected.action):
        raise VerificationError(
            f"program {program.name}: {where} returned {len(found.action)} rows, expected "
            f"{len(expected.action)}"
        )
    same = (expected.action.view(np.uint32) == found.action.view(np.uint32)).all(axis=1)
    same &= expected.margin.view(np.uint32) == found.margin.view(np.uint32)
    same &= expected.status == found.status
    if not same.all():
        row = int(np.argmin(same))
        ours = f"{expected.action[row]} margin {expected.margin[row]} {expected.status[row]}"
        theirs = f"{found.action[row]} margin {found.margin[row]} {found.status[row]}"
        raise VerificationError(
            f"program {program.name}: {where} and the interpreter differ in {int((~same).sum())} "
            f"of {len(same)} rows; row {row}: {theirs}, expected {ours}"
        )

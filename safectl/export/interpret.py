"""The NumPy meaning of a program: the same float32 operations in the same order as the C.

Sums are sequential: a dense output starts at its bias and adds w[k] x[k] for k = 0, 1, ...; a dot
product starts at zero. No multiplication is fused with an addition. The loops run over k and are
vectorised over rows and outputs, which changes no rounding.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int8

from safectl.errors import ShapeError
from safectl.export.arithmetic import clip, dot, tanh
from safectl.export.ops import Op
from safectl.export.program import (
    ACTION,
    FAIL_SAFE,
    MARGIN,
    MARGIN_NONE,
    MARGIN_UNKNOWN,
    OBSERVATION,
    STATUS,
    Array,
    Program,
)
from safectl.export.project import HalfSpace, project_halfspace_box
from safectl.types import Status


class Steps(NamedTuple):
    """What a program returns for a batch of observations.

    Attributes:
        action: Actions within the limits, shape (batch, nu), units of the specification.
        margin: Constraint value at the action, shape (batch,); `MARGIN_NONE` without constraints,
            `MARGIN_UNKNOWN` for the fail-safe action.
        status: `Status` per row, shape (batch,).
    """

    action: Float32[np.ndarray, "batch nu"]
    margin: Float32[np.ndarray, " batch"]
    status: Int8[np.ndarray, " batch"]


def interpret(program: Program, observation: Float32[np.ndarray, "batch nx"]) -> Steps:
    """Run a program on a batch of observations.

    A row with NaN or infinity, or whose action or margin overflows to such, returns the fail-safe
    action with `Status.FALLBACK`. Row i depends on nothing but row i.

    Without a constraint the status is `CORRECTED` where the limits changed the action, else `KEPT`.

    Args:
        program: The program.
        observation: Shape (batch, nx), units of the specification. Any other dtype is rounded to
            float32 first, as it is before it reaches the C; what overflows then is not finite.

    Returns:
        Action, margin and status per row.

    Raises:
        ShapeError: If the observation does not fit the specification.
    """
    nx = program.spec.nx
    if observation.ndim != 2 or observation.shape[1] != nx:
        raise ShapeError("observation", expected=("batch", nx), got=observation.shape)
    with np.errstate(all="ignore"):  # overflow is legal and caught by the finite test at the end
        values: dict[str, Array] = {OBSERVATION: observation.astype(np.float32)}
        for op in program.ops:
            constants = [program.constants[name] for name in op.constants]
            results = _MEANINGS[op.kind](op, [values[name] for name in op.inputs], constants)
            values.update(zip(op.outputs, results, strict=True))
    return _finish(program, values)


def _finish(program: Program, values: Mapping[str, Array]) -> Steps:
    """Replace what is not finite by the fail-safe action."""
    observation, action = values[OBSERVATION], values[ACTION]
    batch = len(observation)
    margin = np.full(batch, MARGIN_NONE, np.float32)
    if MARGIN in values:
        margin, status = values[MARGIN][:, 0], values[STATUS][:, 0].astype(np.int8)
    else:
        is_kept = (values[program.unlimited_action] == action).all(axis=1)
        status = np.where(is_kept, np.int8(Status.KEPT), np.int8(Status.CORRECTED))
    finite = np.isfinite(observation).all(axis=1) & np.isfinite(action).all(axis=1)
    finite &= np.isfinite(margin)
    return Steps(
        np.where(finite[:, None], action, program.constants[FAIL_SAFE]),
        np.where(finite, margin, np.float32(MARGIN_UNKNOWN)),
        np.where(finite, status, np.int8(Status.FALLBACK)),
    )


_Meaning = Callable[[Op, list[Array], list[Array]], tuple[Array, ...]]


def _normalise(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    mean, scale, shift, limit = constants
    return (clip((inputs[0] - mean) * scale + shift, -limit, limit),)


def _dense(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    (x,), (weight, bias) = inputs, constants
    total = np.repeat(bias[None, :], len(x), axis=0)
    for k in range(x.shape[1]):
        total = total + x[:, k, None] * weight[None, :, k]
    if op.activation == "relu":
        total = np.where(total < 0, np.float32(0), total)
    return (tanh(total) if op.activation == "tanh" else total,)


def _affine(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    return (inputs[0] * constants[0] + constants[1],)


def _add(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    return (inputs[0] + inputs[1],)


def _abs(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    return (np.where(inputs[0] < 0, -inputs[0], inputs[0]),)


def _slice(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    return (inputs[0][:, op.start : op.stop],)


def _concat(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    return (np.concatenate(inputs, axis=1),)


def _dot(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    return (dot(inputs[0], inputs[1])[:, None],)


def _clip(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    return (clip(inputs[0], constants[0], constants[1]),)


def _project(op: Op, inputs: list[Array], constants: list[Array]) -> tuple[Array, ...]:
    action, margin, status = project_halfspace_box(
        inputs[0], HalfSpace(inputs[1], inputs[2][:, 0], inputs[3][:, 0]), *constants
    )
    return action, margin[:, None], status.astype(np.float32)[:, None]


_MEANINGS: Mapping[str, _Meaning] = {
    "normalise": _normalise,
    "dense": _dense,
    "affine": _affine,
    "add": _add,
    "abs": _abs,
    "slice": _slice,
    "concat": _concat,
    "dot": _dot,
    "clip": _clip,
    "project_halfspace_box": _project,
}

"""The NumPy meaning of a program: the same float32 operations in the same order as the C.

Sums are sequential: a dense output starts at its bias and adds w[k] x[k] for k = 0, 1, ...; a dot
product starts at zero. No multiplication is fused with an addition. The loops run over k and are
vectorised over rows and outputs, which changes no rounding. What each operation means is in
`export/kinds/`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int8

from safectl.errors import ShapeError, UnknownNameError
from safectl.export.kinds import KINDS
from safectl.export.ops import AnyArray, Array
from safectl.export.program import (
    ACTION,
    FAIL_SAFE,
    MARGIN,
    MARGIN_NONE,
    MARGIN_UNKNOWN,
    OBSERVATION,
    STATUS,
    Program,
)
from safectl.types import Status


class Steps(NamedTuple):
    """What a program returns for a batch of observations.

    Attributes:
        action: Actions within the limits, shape (batch, nu), units of the specification.
        margin: Constraint value at the action, shape (batch,); `MARGIN_NONE` without constraints,
            `MARGIN_UNKNOWN` for the fail-safe action.
        status: `Status` per row, shape (batch,).
        states: State of the program after each row, shape (batch, n) per name; empty where it has
            none or it is not known.
    """

    action: Float32[np.ndarray, "batch nu"]
    margin: Float32[np.ndarray, " batch"]
    status: Int8[np.ndarray, " batch"]
    states: Mapping[str, Array] = {}


def interpret(
    program: Program,
    observation: Float32[np.ndarray, "batch nx"],
    states: Mapping[str, Array] | None = None,
) -> Steps:
    """Run one step of a program on every observation of a batch.

    A row with NaN or infinity, or whose action, margin, next state or input of an integer layer
    becomes such, returns the fail-safe action with `Status.FALLBACK` and keeps its state. Row i
    depends on nothing but row i; `replay` treats rows as consecutive steps instead.

    Without a constraint the status is `CORRECTED` where the limits changed the action, else `KEPT`.

    Args:
        program: The program.
        observation: Shape (batch, nx), units of the specification. Any other dtype is rounded to
            float32 first, as it is before it reaches the C; what overflows then is not finite.
        states: State before the step, shape (batch, n) per name; the initial one when absent.

    Returns:
        Action, margin, status and next state per row.

    Raises:
        ShapeError: If the observation does not fit the specification, or a state its constant.
        UnknownNameError: If a state is missing or none of the program's.
    """
    nx = program.spec.nx
    if observation.ndim != 2 or observation.shape[1] != nx:
        raise ShapeError("observation", expected=("batch", nx), got=observation.shape)
    before = _states(program, len(observation), states)
    with np.errstate(all="ignore"):  # overflow is legal and caught by the finite test at the end
        values = run_ops(program, {OBSERVATION: observation.astype(np.float32), **before})
        return _finish(program, values, before)


def replay(program: Program, observation: Float32[np.ndarray, "steps nx"]) -> Steps:
    """Run a program on consecutive observations from its initial state.

    Args:
        program: The program.
        observation: Shape (steps, nx), units of the specification.

    Returns:
        Action, margin, status and state after each step. Without states the same as `interpret`.

    Raises:
        ShapeError: If the observation does not fit the specification.
    """
    if not program.states or len(observation) == 0:
        return interpret(program, observation)
    rows = [interpret(program, observation[:1])]
    for row in observation[1:]:
        rows.append(interpret(program, row[None], rows[-1].states))
    return Steps(
        action=np.concatenate([row.action for row in rows]),
        margin=np.concatenate([row.margin for row in rows]),
        status=np.concatenate([row.status for row in rows]),
        states={
            name: np.concatenate([row.states[name] for row in rows]) for name in program.states
        },
    )


def run_ops(program: Program, values: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Return every value of a program, (batch, size) each, given the observation and the states."""
    known = dict(values)
    for op in program.ops:
        constants = [program.constants[name] for name in op.constants]
        results = KINDS[op.kind].meaning(op, [known[name] for name in op.inputs], constants)
        known.update(zip(op.outputs, results, strict=True))
    return known


def _states(
    program: Program, batch: int, states: Mapping[str, Array] | None
) -> dict[str, AnyArray]:
    result = {}
    for name, state in program.states.items():
        initial = program.constants[state.initial].reshape(-1)
        if states is not None and name not in states:
            raise UnknownNameError("state", name, known=sorted(states))
        given = np.tile(initial, (batch, 1)) if states is None else states[name]
        if given.shape != (batch, len(initial)):
            raise ShapeError(f"state {name}", expected=(batch, len(initial)), got=given.shape)
        result[name] = given
    return result


def _finish(
    program: Program, values: Mapping[str, AnyArray], before: Mapping[str, AnyArray]
) -> Steps:
    """Replace what is not finite by the fail-safe action and the state before."""
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
    for name in (name for op in program.ops if KINDS[op.kind].hides for name in op.inputs):
        finite &= np.isfinite(values[name]).all(axis=1)
    following = {name: values[state.following] for name, state in program.states.items()}
    for array in following.values():
        finite &= np.isfinite(array).all(axis=1)
    return Steps(
        np.where(finite[:, None], action, program.constants[FAIL_SAFE]),
        np.where(finite, margin, np.float32(MARGIN_UNKNOWN)),
        np.where(finite, status, np.int8(Status.FALLBACK)),
        {name: np.where(finite[:, None], following[name], before[name]) for name in following},
    )

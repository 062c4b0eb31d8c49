"""The kinds of operations a `Program` may hold: each with its sizes, its meaning and its C."""

from collections.abc import Mapping

from safectl.errors import RangeError, UnknownNameError
from safectl.export.kinds import (
    activation,
    adapt,
    dense,
    elementwise,
    filters,
    forward_gradient,
    geometry,
    integer,
    nearest,
    ngpc,
    optimise,
    projection,
    recurrent,
    spatial,
)
from safectl.export.kinds.activation import ACTIVATIONS, check_activation
from safectl.export.kinds.kind import Call, Kind
from safectl.export.ops import Op, Shape, Value

__all__ = ["ACTIVATIONS", "KINDS", "Call", "Kind", "output_values"]

KINDS: Mapping[str, Kind] = {
    **elementwise.KINDS,
    **activation.KINDS,
    **dense.KINDS,
    **spatial.KINDS,
    **recurrent.KINDS,
    **integer.KINDS,
    **projection.KINDS,
    **ngpc.KINDS,
    **geometry.KINDS,
    **filters.KINDS,
    **nearest.KINDS,
    **optimise.KINDS,
    **adapt.KINDS,
    **forward_gradient.KINDS,
}


def output_values(
    op: Op, values: Mapping[str, Value], constants: Mapping[str, Shape]
) -> tuple[Value, ...]:
    """Check one operation against the values and constants it names and size its outputs.

    Args:
        op: The operation.
        values: Size and format of every value defined before it.
        constants: Shape of every constant.

    Returns:
        Size and format of each output, in order.

    Raises:
        UnknownNameError: If the kind, an input, a constant or the activation is not known.
        RangeError: If the number of inputs, outputs or constants is wrong, or an attribute is.
        ShapeError: If a size does not fit.
    """
    if op.kind not in KINDS:
        raise UnknownNameError("operation", op.kind, known=sorted(KINDS))
    check_activation(op.activation)
    for name in op.inputs:
        if name not in values:
            raise UnknownNameError(f"input of {op.kind}", name, known=sorted(values))
    for name in op.constants:
        if name not in constants:
            raise UnknownNameError(f"constant of {op.kind}", name, known=sorted(constants))
    kind = KINDS[op.kind]
    if not op.inputs or (kind.inputs and len(op.inputs) not in kind.inputs):
        counts = " or ".join(str(count) for count in kind.inputs) or "one or more"
        raise RangeError(f"inputs of {op.kind}", value=op.inputs, expected=f"{counts} names")
    shapes = [constants[name] for name in op.constants]
    results = kind.rule(op, [values[name] for name in op.inputs], shapes)
    if len(op.outputs) != len(results):
        raise RangeError(
            f"outputs of {op.kind}", value=op.outputs, expected=f"{len(results)} names"
        )
    return results

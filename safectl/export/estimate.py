"""What a step will cost before anything is compiled; a build for a board measures it."""

from safectl.export.ops import Integers, Loop, Op, Recurrence, Window
from safectl.export.program import Program

_PER_PRODUCT = {True: 1.8, False: 3.4}  # integer, float: inner loops on a Cortex-M4F at -O2
_PER_ENTRY = 15.0  # of every output: activation, rounding, copy
_PER_OBSERVATION = 6.0  # the test for NaN and infinity
_PER_GATE = 40.0  # of every gate of a recurrent layer: activation and products without weights
_PER_TAP, _PER_PIXEL = 12.0, 150.0  # of a window: finding the pixel; sums and calls
_PER_POOLED = 10.0  # of every entry that a pool or a depthwise convolution sees
_PER_ROW = 220.0  # of a projection: a constraint, or half of the two limits of an action
_PER_UNIT = 40.0  # of a critic, forwards and backwards: activation and slope
_PER_OPERATION = 40.0  # the call
_PER_STEP = 200.0  # calls and the final checks


def estimate_instructions(program: Program) -> int:
    """Return instructions of one step on a Cortex-M4F, within a factor of two for networks.

    The factors are averages of the networks that the benchmarks `mcu.*` measure.
    """
    values = program.values
    total = _PER_STEP + _PER_OBSERVATION * program.spec.nx
    for op in program.ops:
        total += _PER_PRODUCT[is_integer(op)] * program.products(op)
        total += _around(op, program) + _PER_OPERATION
        total += _PER_ENTRY * sum(values[name].size for name in op.outputs if op.kind != "slice")
    return round(total)


def _around(op: Op, program: Program) -> float:
    """Return the instructions of windows, gates and loops beside their products with weights."""
    if isinstance(op.detail, Recurrence):
        gates = len(program.constants[op.constants[0]])
        return _PER_GATE * op.detail.steps * gates
    if op.kind == "project_polytope_box":
        actions, rows = (program.values[name].size for name in (op.inputs[0], op.inputs[2]))
        return _PER_ROW * (rows + 3 * actions)
    if isinstance(op.detail, Loop) and op.kind == "correct":
        units = sum(len(program.constants[name]) for name in op.constants[4:])
        return _PER_UNIT * (2 * op.detail.iterations + 1) * units
    window = op.detail.window if isinstance(op.detail, Integers) else op.detail
    if not isinstance(window, Window):
        return 0.0
    taps = window.pixels * window.size[0] * window.size[1]
    by_channel = "pool" in op.kind or "depthwise" in op.kind
    seen = _PER_POOLED * taps * window.shape[2] if by_channel else 0.0
    return _PER_TAP * taps + _PER_PIXEL * window.pixels + seen


def is_integer(op: Op) -> bool:
    """Return whether an operation multiplies integers."""
    return op.kind.startswith("integer_")


def number_formats(program: Program) -> str:
    """Return one sentence on the arithmetic of the layers, for people."""
    formats = {value.dtype for value in program.values.values()} - {"float32", "int32"}
    if not formats:
        return "All numbers are float32."
    return (
        f"Dense layers and convolutions multiply {' and '.join(sorted(formats))} values by int8 "
        "weights with a scale per output channel, in 32-bit sums that cannot overflow, and round "
        "once per output (multiplier and shift as in CMSIS-NN with single rounding; int16 values "
        "are the 16x8 scheme). Recurrent layers, layer normalisation, add, concat and softmax are "
        "float32; so are activations of int16 layers. Int8 activations are tables."
    )

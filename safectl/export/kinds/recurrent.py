"""SimpleRNN, GRU and LSTM: loops over the steps of a sequence, written out in C from vector calls.

With x the features of one step, h the state of u units, W the kernel and R the recurrent kernel
(Keras conventions; every product is summed from the bias on, inputs in order, then units in order):

    simple_rnn  h = act(b + W x + R h)
    gru         z, r = gate(b + W x + R h);  candidate k = act(b + W x + r (b' + R' h)), or, without
                `reset_after`, act(b + W x + R' (r h));  h = z h + (1 - z) k
    lstm        i, f, g, o = b + W x + R h;  c = gate(f) c + gate(i) act(g), within the limit of
                the cell if there is one;  h = gate(o) act(c)

Inputs are the sequence and, if the layer is given one, the state before it: h, for `lstm` h and c.
Without, it starts at zero. Outputs are all states h of the sequence if they are asked for, and the
state after it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from safectl.errors import RangeError
from safectl.export.arithmetic import clip, multiply_add
from safectl.export.kinds.activation import FUNCTIONS, activation_lines, check_activation
from safectl.export.kinds.dense import block_weights
from safectl.export.kinds.kind import Call, Kind, call, detail_of, expect, expect_size, indent
from safectl.export.literals import float_literal
from safectl.export.ops import AnyArray, Array, Op, Recurrence, Shape, Value

_Cell = Callable[[Op, Array, Sequence[Array], Sequence[AnyArray]], tuple[Array, ...]]
_GATES = {"simple_rnn": 1, "gru": 3, "lstm": 4}
_STATES = {"simple_rnn": 1, "gru": 1, "lstm": 2}
_ONE = np.float32(1.0)


def _rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    recurrence, gates, states = detail_of(op, Recurrence), _GATES[op.kind], _STATES[op.kind]
    for kind in (op.activation, recurrence.recurrent_activation):
        check_activation(kind, allowed=("none", *FUNCTIONS))
    if not shapes or len(shapes[0]) != 2 or not shapes[0][0] or shapes[0][0] % gates:
        raise RangeError(
            f"kernel of {op.kind}", value=op.constants, expected=f"shape ({gates} units, features)"
        )
    units, features = shapes[0][0] // gates, shapes[0][1]
    expect(op, shapes, _shapes(op, recurrence, units, features))
    expect_size(op, 0, values[0], recurrence.steps * features)
    if len(values) not in (1, 1 + states):
        raise RangeError(f"inputs of {op.kind}", value=op.inputs, expected=f"1 or {1 + states}")
    for index in range(1, len(values)):
        expect_size(op, index, values[index], units)
    sequence = (Value(recurrence.steps * units),) if recurrence.return_sequences else ()
    return (*sequence, *(Value(units) for _ in range(states)))


def _shapes(op: Op, recurrence: Recurrence, units: int, features: int) -> list[Shape]:
    gates = _GATES[op.kind]
    if op.kind != "gru":
        return [(gates * units, features), (gates * units, units), (gates * units,)]
    shapes: list[Shape] = [(3 * units, features), (2 * units, units), (3 * units,), (units, units)]
    return [*shapes, (units,)] if recurrence.reset_after else shapes


def _function(op: Op, kind: str) -> Callable[[Array], Array]:
    if kind == "none":
        return lambda x: x
    return lambda x: FUNCTIONS[kind](x, np.float32(op.alpha))


def _rnn_cell(
    op: Op, x: Array, state: Sequence[Array], constants: Sequence[AnyArray]
) -> tuple[Array, ...]:
    kernel, recurrent, bias = constants
    sums = multiply_add(state[0], recurrent, multiply_add(x, kernel, bias))
    return (_function(op, op.activation)(sums),)


def _gru_cell(
    op: Op, x: Array, state: Sequence[Array], constants: Sequence[AnyArray]
) -> tuple[Array, ...]:
    recurrence, (h,) = detail_of(op, Recurrence), state
    kernel, recurrent, bias, candidate = constants[:4]
    units = h.shape[1]
    sums = multiply_add(x, kernel, bias)
    gates = multiply_add(h, recurrent, sums[:, : 2 * units])
    gates = _function(op, recurrence.recurrent_activation)(gates)
    update, reset = gates[:, :units], gates[:, units:]
    if recurrence.reset_after:
        proposed = reset * multiply_add(h, candidate, constants[4]) + sums[:, 2 * units :]
    else:
        proposed = multiply_add(reset * h, candidate, sums[:, 2 * units :])
    proposed = _function(op, op.activation)(proposed)
    return (update * h + (_ONE - update) * proposed,)


def _lstm_cell(
    op: Op, x: Array, state: Sequence[Array], constants: Sequence[AnyArray]
) -> tuple[Array, ...]:
    (kernel, recurrent, bias), (h, c) = constants, state
    units = h.shape[1]
    recurrence = detail_of(op, Recurrence)
    gate = _function(op, recurrence.recurrent_activation)
    activation = _function(op, op.activation)
    sums = multiply_add(h, recurrent, multiply_add(x, kernel, bias))
    enter, forget = gate(sums[:, :units]), gate(sums[:, units : 2 * units])
    c = forget * c + enter * activation(sums[:, 2 * units : 3 * units])
    if recurrence.cell_limit is not None:
        c = clip(c, np.float32(-recurrence.cell_limit), np.float32(recurrence.cell_limit))
    return gate(sums[:, 3 * units :]) * activation(c), c


_CELLS: Mapping[str, _Cell] = {"simple_rnn": _rnn_cell, "gru": _gru_cell, "lstm": _lstm_cell}


def _meaning(
    op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]
) -> tuple[AnyArray, ...]:
    recurrence = detail_of(op, Recurrence)
    batch, units = len(inputs[0]), len(constants[0]) // _GATES[op.kind]
    sequence = inputs[0].reshape(batch, recurrence.steps, -1)
    state = tuple(inputs[1:]) or (np.zeros((batch, units), np.float32),) * _STATES[op.kind]
    seen = []
    for step in range(recurrence.steps):
        state = _CELLS[op.kind](op, sequence[:, step], state, constants)
        seen.append(state[0])
    return (np.concatenate(seen, axis=1), *state) if recurrence.return_sequences else state


def _stored(op: Op, constants: Sequence[AnyArray]) -> Sequence[AnyArray | None]:
    del op
    return [block_weights(array) if array.ndim == 2 else array for array in constants]


def _scratch(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    del sizes
    units = shapes[0][0] // _GATES[op.kind]
    return (Value(shapes[0][0] + (0 if op.kind == "simple_rnn" else units)),)


def _lines(c: Call) -> list[str]:
    recurrence = detail_of(c.op, Recurrence)
    units = len(c.constants[0]) // _GATES[c.op.kind]
    first = int(recurrence.return_sequences)
    states = c.outputs[first:]
    lines = [
        call("sf_copy", place, c.inputs[1 + index], units)
        if len(c.inputs) > 1
        else call("sf_fill", place, "0.0f", units)
        for index, place in enumerate(states)
    ]
    features = c.sizes[0] // recurrence.steps
    source = c.inputs[0] if recurrence.steps == 1 else f"{c.inputs[0]} + t * {features}u"
    body = _BODIES[c.op.kind](c, source, states, units)
    if recurrence.return_sequences:
        target = c.outputs[0] if recurrence.steps == 1 else f"{c.outputs[0]} + t * {units}u"
        body.append(call("sf_copy", target, states[0], units))
    if recurrence.steps == 1:
        return [*lines, *body]
    loop = f"for (size_t t = 0; t < {recurrence.steps}u; t++) {{"
    return [*lines, loop, *indent(body), "}"]


def _rnn_body(c: Call, x: str, states: Sequence[str], units: int) -> list[str]:
    (h,), (kernel, recurrent, bias) = states, c.tables
    sums = c.scratch[0]
    return [
        call("sf_dense", sums, x, kernel, bias, f"{c.constants[0].shape[1]}, {units}"),
        call("sf_dense", sums, h, recurrent, sums, f"{units}, {units}"),
        *_apply(c, h, sums, units, c.op.activation),
    ]


def _gru_body(c: Call, x: str, states: Sequence[str], units: int) -> list[str]:
    recurrence, (h,) = detail_of(c.op, Recurrence), states
    kernel, recurrent, bias, candidate = c.tables[:4]
    update, reset = c.scratch[0], f"{c.scratch[0]} + {units}"
    proposed, work = f"{c.scratch[0]} + {2 * units}", f"{c.scratch[0]} + {3 * units}"
    square = f"{units}, {units}"
    if recurrence.reset_after:
        middle = [
            call("sf_dense", work, h, candidate, c.tables[4], square),
            call("sf_multiply", work, reset, work, units),
            call("sf_add", proposed, work, proposed, units),
        ]
    else:
        middle = [
            call("sf_multiply", work, reset, h, units),
            call("sf_dense", proposed, work, candidate, proposed, square),
        ]
    return [
        call("sf_dense", update, x, kernel, bias, f"{c.constants[0].shape[1]}, {3 * units}"),
        call("sf_dense", update, h, recurrent, update, f"{units}, {2 * units}"),
        *_apply(c, update, update, 2 * units, recurrence.recurrent_activation),
        *middle,
        *_apply(c, proposed, proposed, units, c.op.activation),
        call("sf_blend", h, update, proposed, units),
    ]


def _lstm_body(c: Call, x: str, states: Sequence[str], units: int) -> list[str]:
    (h, cell), (kernel, recurrent, bias) = states, c.tables
    recurrence = detail_of(c.op, Recurrence)
    gate, limit = recurrence.recurrent_activation, recurrence.cell_limit
    limited = (
        [] if limit is None else [call("sf_limit", cell, float_literal(np.float32(limit)), units)]
    )
    enter, forget = c.scratch[0], f"{c.scratch[0]} + {units}"
    proposed, leave = f"{c.scratch[0]} + {2 * units}", f"{c.scratch[0]} + {3 * units}"
    work = f"{c.scratch[0]} + {4 * units}"
    return [
        call("sf_dense", enter, x, kernel, bias, f"{c.constants[0].shape[1]}, {4 * units}"),
        call("sf_dense", enter, h, recurrent, enter, f"{units}, {4 * units}"),
        *_apply(c, enter, enter, 2 * units, gate),
        *_apply(c, proposed, proposed, units, c.op.activation),
        *_apply(c, leave, leave, units, gate),
        call("sf_multiply", cell, forget, cell, units),
        call("sf_multiply", proposed, enter, proposed, units),
        call("sf_add", cell, cell, proposed, units),
        *limited,
        *_apply(c, work, cell, units, c.op.activation),
        call("sf_multiply", h, leave, work, units),
    ]


_BODIES = {"simple_rnn": _rnn_body, "gru": _gru_body, "lstm": _lstm_body}


def _apply(c: Call, place: str, source: str, size: int, kind: str) -> list[str]:
    if kind == "none":
        return [] if place == source else [call("sf_copy", place, source, size)]
    return activation_lines(c.op, place, source, size, kind)


def _products(op: Op, shapes: Sequence[Shape]) -> int:
    weights = sum(int(np.prod(shape)) for shape in shapes if len(shape) == 2)
    return detail_of(op, Recurrence).steps * weights


_FILES = ("sf_nn", "sf_activation")


def _kind(inputs: tuple[int, ...]) -> Kind:
    return Kind(
        inputs,
        _rule,
        _meaning,
        _lines,
        _FILES,
        stored=_stored,
        scratch=_scratch,
        multiply_adds=_products,
    )


KINDS: Mapping[str, Kind] = {
    # constants kernel (units, features), recurrent (units, units), bias (units)
    "simple_rnn": _kind((1, 2)),
    # constants kernel (3 units, features) for z, r, candidate; recurrent (2 units, units);
    # bias (3 units); recurrent (units, units) and, with `reset_after`, bias of the candidate
    "gru": _kind((1, 2)),
    # constants kernel (4 units, features) for i, f, g, o; recurrent (4 units, units); bias
    "lstm": _kind((1, 3)),
}

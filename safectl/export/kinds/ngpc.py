"""Neural generalised predictive control as one operation: sizes, and its text in C.

Inputs are the observation (measured outputs, sensors, reference) and the memory that the last step
left; outputs are action, margin, status and the next memory. The C is a loop over Newton steps and
a loop over the horizon, with the layers of the network written out as calls.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from safectl.errors import RangeError, ShapeError
from safectl.export.kinds.kind import Call, Kind, call, detail_of, expect, expect_size, indent
from safectl.export.kinds.ngpc_meaning import GATED, meaning, split_constants
from safectl.export.literals import float_literal
from safectl.export.ops import AnyArray, Horizon, Op, Shape, Value

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid", GATED)
"""Activations whose slope and bend follow from their output without a further exponential."""

_BUFFERS = ("value", "first", "second")


def _rule(op: Op, values: Sequence[Value], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    horizon = detail_of(op, Horizon)
    m, p = horizon.inputs, horizon.outputs
    expect_size(op, 0, values[0], horizon.observation_size)
    expect_size(op, 1, values[1], horizon.memory_size)
    for activation in horizon.activations:
        if activation not in ACTIVATIONS:
            raise RangeError("activation", value=activation, expected=f"one of {ACTIVATIONS}")
    wanted: list[Shape] = [(m,), (m,), (p,), (m,), (2,)]
    wanted += [] if horizon.is_box else [(m,), (m,)]
    inputs = horizon.lagged + horizon.sensors
    for activation in horizon.activations:
        weight = shapes[len(wanted)] if len(wanted) < len(shapes) else (0, 0)
        rows = weight[0]
        outputs = rows // 3 if activation == GATED else rows
        wanted += [(rows, inputs), (rows,)]
        wanted += [(outputs,)] if activation == GATED else []
        inputs = outputs
    expect(op, shapes, wanted)
    if inputs != p:
        raise ShapeError("output of the network", expected=(p,), got=(inputs,))
    return (Value(m), Value(1), Value(1), values[1])


def _stored(op: Op, constants: Sequence[AnyArray]) -> Sequence[AnyArray | None]:
    """Store all but the settings, which the statements hold; weights stay row after row."""
    del op
    return [None if index == 4 else array for index, array in enumerate(constants)]


def _places(horizon: Horizon, shapes: Sequence[Shape]) -> dict[str, tuple[int, int]]:
    """Return offset and size of every part of the working memory, in floats."""
    p, nz, pairs = horizon.outputs, horizon.decisions, horizon.pairs
    rows = [shape[0] for shape in shapes[4:] if len(shape) == 2]
    width = max(rows)
    sizes = {
        "base": rows[0],
        "lags": horizon.lagged,
        "slope": width,
        "bend": width if pairs else 0,
        "predicted": horizon.last * p,
        "first": horizon.last * nz * p,
        "second": horizon.last * pairs * p,
        "gradient": nz,
        "hessian": nz * (nz + 1) // 2,
        "factor": nz * (nz + 1) // 2,
        "step": nz,
    }
    for side in (0, 1):
        for name, count in zip(_BUFFERS, (1, nz, pairs), strict=True):
            sizes[f"{name}_{side}"] = count * width if side == 0 or len(rows) > 1 else 0
    places, offset = {}, 0
    for name, size in sizes.items():
        places[name] = (offset, size)
        offset += size
    return places


def _scratch(op: Op, sizes: Sequence[int], shapes: Sequence[Shape]) -> tuple[Value, ...]:
    del sizes
    return (Value(sum(size for _, size in _places(detail_of(op, Horizon), shapes).values())),)


def _lines(c: Call) -> list[str]:
    horizon = detail_of(c.op, Horizon)
    shapes = [array.shape for array in c.constants]
    places = _places(horizon, shapes).items()
    at = {name: f"{c.scratch[0]} + {offset}" for name, (offset, _) in places}
    fields = _fields(c, horizon, at)
    name = f"ngpc_{c.op.outputs[0]}"
    index = horizon.layers_start
    rows = shapes[index][0]
    p, columns = horizon.outputs, shapes[index][1]
    weight, bias = c.tables[index], c.tables[index + 1]
    by_sensor = f"{weight} + {horizon.lagged}"
    sensors = f"{c.inputs[0]} + {p}"
    sizes = f"{columns}, {horizon.sensors}, {rows}"
    reference = f"{c.inputs[0]} + {p + horizon.sensors}"
    stride = p if horizon.has_preview else 0
    newton = [
        f"for (size_t k = 1; k <= {horizon.last}u; k++) {{",
        *indent(_network(c, horizon, at, name, has_tangents=True)),
        "}",
        call("sf_ngpc_track", f"&{name}", horizon.first, horizon.last, reference, stride),
        *([call("sf_ngpc_bend", f"&{name}", horizon.first, horizon.last)] if horizon.pairs else []),
        call("sf_ngpc_move", f"&{name}"),
        _limit(c, horizon, name),
        f"is_plain &= sf_ngpc_newton(&{name});",
    ]
    return [
        f"sf_ngpc {name} = {{{fields[0]}",
        *[f"    {field}" for field in fields[1:]],
        "};",
        "int is_plain = 1;",
        call("sf_ngpc_measure", f"&{name}", float_literal(c.constants[4][0])),
        call("sf_rows_value", at["base"], sensors, by_sensor, bias, sizes),
        f"for (size_t step = 0; step < {horizon.iterations}u; step++) {{",
        *indent(newton),
        "}",
        *_network(c, horizon, at, name, has_tangents=False),
        call("sf_ngpc_finish", f"&{name}", c.outputs[0], c.outputs[1]),
        f"{c.outputs[2][1:]} = is_plain ? (float)SF_KEPT : (float)SF_CORRECTED;",
    ]


def _fields(c: Call, horizon: Horizon, at: Mapping[str, str]) -> list[str]:
    numbers = {
        "inputs": horizon.inputs,
        "outputs": horizon.outputs,
        "input_lags": horizon.input_lags,
        "output_lags": horizon.output_lags,
        "past_inputs": horizon.past_inputs,
        "control": horizon.control,
        "count": horizon.decisions,
        "pairs": horizon.pairs,
    }
    pointers = {
        "low": c.tables[0],
        "high": c.tables[1],
        "tracking": c.tables[2],
        "effort": c.tables[3],
        "measured": c.inputs[0],
        **{name: at[name] for name in ("lags", "predicted", "first", "second")},
        **{name: at[name] for name in ("gradient", "hessian", "factor", "step")},
    }
    offsets = [0, *np.cumsum(horizon.memory_sizes).tolist()]
    before = ("applied", "past", "old_plan", "expected")
    after = ("next_applied", "next_past", "plan", "prediction", "disturbance")
    for names, place in ((before, c.inputs[1]), (after, c.outputs[3])):
        pointers.update(
            {name: f"{place} + {offset}" for name, offset in zip(names, offsets, strict=False)}
        )
    fields = [f".{name} = {value}," for name, value in {**numbers, **pointers}.items()]
    return [" ".join(fields[start : start + 3]) for start in range(0, len(fields), 3)]


def _limit(c: Call, horizon: Horizon, name: str) -> str:
    if horizon.is_box:
        return call("sf_ngpc_hold", f"&{name}")
    sharpness = float_literal(c.constants[4][1])
    return call("sf_ngpc_barrier", f"&{name}", sharpness, *c.tables[5:7])


def _network(
    c: Call, horizon: Horizon, at: Mapping[str, str], name: str, *, has_tangents: bool
) -> list[str]:
    """Write one prediction, of sample k with tangents or of sample 1 without."""
    nz, pairs = (horizon.decisions, horizon.pairs) if has_tangents else (0, 0)
    k, side, lines = "k" if has_tangents else "1u", 0, []
    _, layers = split_constants(horizon, c.constants)
    tables = iter(c.tables[horizon.layers_start :])
    for index, layer in enumerate(layers):
        weight, bias = next(tables), next(tables)
        rows, inputs = layer.weight.shape
        if index == 0:
            sizes = f"{weight}, {inputs}, {rows}"
            lines.append(call("sf_ngpc_value", f"&{name}", k, at["value_0"], at["base"], sizes))
            if nz:
                lines.append(call("sf_ngpc_first", f"&{name}", k, at["first_0"], sizes))
            if pairs:
                lines.append(call("sf_ngpc_second", f"&{name}", k, at["second_0"], sizes))
        else:
            source, side = side, 1 - side
            here = [(at[f"{part}_{side}"], at[f"{part}_{source}"]) for part in _BUFFERS]
            sizes = f"{inputs}, {inputs}, {rows}"
            lines.append(call("sf_rows_value", *here[0], weight, bias, sizes))
            for (target, origin), count in zip(here[1:], (nz, pairs), strict=True):
                if count:
                    arguments = (target, origin, weight, 1, sizes, count)
                    lines.append(call("sf_rows_tangent", *arguments))
        if layer.activation == GATED:
            lines += _gate(at, side, next(tables), rows // 3, nz, pairs)
            side = 1 - side
        elif layer.activation != "none":
            places = [at[f"{part}_{side}"] for part in _BUFFERS]
            lines += _activation(layer.activation, places, at, rows, nz, pairs)
    p, outputs = horizon.outputs, [at[f"{part}_{side}"] for part in _BUFFERS]
    row = f" + ({k} - 1u) * {p}u" if has_tangents else ""
    disturbance = f"{c.outputs[3]} + {horizon.memory_size - p - 1}"
    lines.append(call("sf_add", f"{at['predicted']}{row}", outputs[0], disturbance, p))
    for part, place, count in zip(_BUFFERS[1:], outputs[1:], (nz, pairs), strict=True):
        if count:
            target = f"{at[part]} + (k - 1u) * {count * p}u"
            lines.append(call("sf_copy", target, place, count * p))
    return lines


def _activation(
    kind: str,
    places: Sequence[str],
    at: Mapping[str, str],
    size: int,
    nz: int,
    pairs: int,
) -> list[str]:
    """Write an activation with its tangents."""
    value, first, second = places
    lines = [call(f"sf_{kind}", value, value, size)]
    if nz:
        lines.append(call(f"sf_slope_{kind}", at["slope"], value, size))
    if pairs:
        lines.append(call(f"sf_bend_{kind}", at["bend"], value, at["slope"], size))
        arguments = (second, first, at["slope"], at["bend"], size, nz)
        lines.append(call("sf_tangent_bend", *arguments))
    if nz:
        lines.append(call("sf_tangent_scale", first, at["slope"], size, nz))
    return lines


def _gate(
    at: Mapping[str, str], side: int, reset_bias: str, n: int, nz: int, pairs: int
) -> list[str]:
    here = [at[f"{part}_{side}"] for part in _BUFFERS]
    there = [at[f"{part}_{1 - side}"] for part in _BUFFERS]
    lines = _activation("sigmoid", here, at, 2 * n, nz, pairs)
    for place, count in zip(here, (1, nz, pairs), strict=True):
        if count:
            lines.append(call("sf_gate_reset", place, reset_bias, n, count))
    counts = (1, nz, pairs)
    candidate = [f"{place} + {2 * n * count}" for place, count in zip(here, counts, strict=True)]
    lines += _activation("tanh", candidate, at, n, nz, pairs)
    lines.append(call("sf_gate_value", there[0], here[0], n))
    if nz:
        lines.append(call("sf_gate_first", there[1], here[1], here[0], n, nz))
    if pairs:
        lines.append(call("sf_gate_second", there[2], here[2], here[1], here[0], n, nz))
    return lines


def _products(op: Op, shapes: Sequence[Shape]) -> int:
    """Products of all values over the horizon; tangents come on top."""
    horizon = detail_of(op, Horizon)
    weights = sum(int(np.prod(shape)) for shape in shapes[4:] if len(shape) == 2)
    return (horizon.iterations * horizon.last + 1) * weights


KINDS: Mapping[str, Kind] = {
    # inputs observation, memory; constants low (m), high (m), square roots of 2 Q (p), 2 L (m),
    # disturbance gain and sharpness (2), with a barrier its ends (m) and (m), then per layer weight
    # (rows, in), bias (rows) and of a gated one reset bias (rows / 3)
    "ngpc": Kind(
        (2,),
        _rule,
        meaning,
        _lines,
        ("sf_nn", "sf_activation", "sf_tangent", "sf_ngpc"),
        stored=_stored,
        scratch=_scratch,
        multiply_adds=_products,
    ),
}

"""Neural generalised predictive control in NumPy: the operations and roundings of sf_ngpc.c.

Everything is vectorised over rows of the batch, which changes no rounding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safectl.export.arithmetic import multiply_add
from safectl.export.kinds.activation import FUNCTIONS
from safectl.export.kinds.ngpc_newton import Cost, Jet, newton_step, pairs
from safectl.export.ops import AnyArray, Array, Horizon, Op
from safectl.types import Status

GATED = "gated"
_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)


class NetworkLayer(NamedTuple):
    """Constants of one layer: weight (rows, inputs), bias (rows,), reset bias of a gated one."""

    activation: str
    weight: Array
    bias: Array
    reset_bias: Array | None


class _Known(NamedTuple):
    """What stays the same within a step; histories are (batch, samples, n), newest first."""

    horizon: Horizon
    layers: Sequence[NetworkLayer]
    base: Array
    applied: Array
    outputs: Array
    disturbance: Array


def meaning(
    op: Op, inputs: Sequence[AnyArray], constants: Sequence[AnyArray]
) -> tuple[AnyArray, ...]:
    """Return action, margin, status and the next memory."""
    assert isinstance(op.detail, Horizon)
    horizon, (observation, memory) = op.detail, inputs
    cost, layers = split_constants(horizon, constants)
    m, p, batch = horizon.inputs, horizon.outputs, len(observation)
    measured = observation[:, :p]
    sensors = observation[:, p : p + horizon.sensors]
    reference = observation[:, p + horizon.sensors :].reshape(batch, -1, p)
    applied, past, plan, expected, offset, started = _split_memory(horizon, memory)
    is_started = started > _ZERO
    innovation = np.where(is_started, measured - expected, _ZERO)
    disturbance = offset + cost.gain * innovation
    past = np.where(is_started[..., None], past, measured[:, None])
    plan = np.concatenate([plan[:, m:], plan[:, -m:]], axis=1)
    base = multiply_add(sensors, layers[0].weight[:, horizon.lagged :], layers[0].bias)
    outputs = np.concatenate([measured[:, None], past], axis=1)
    known = _Known(horizon, layers, base, applied, outputs, disturbance)
    is_plain = np.ones(batch, bool)
    for _ in range(horizon.iterations):
        predicted = _predict(known, plan, horizon.last, directions=horizon.decisions)
        relevant = predicted[horizon.first - 1 :]
        plan, is_step_plain = newton_step(cost, relevant, reference, applied[:, 0], plan)
        is_plain &= is_step_plain
    expected = _predict(known, plan, 1, directions=0)[0].value
    action = plan[:, :m]
    margin = np.full(batch, cost.high[0] - cost.low[0])
    for i in range(m):
        for distance in (action[:, i] - cost.low[i], cost.high[i] - action[:, i]):
            margin = np.where(distance < margin, distance, margin)
    applied = np.concatenate([action[:, None], applied], axis=1)[:, : horizon.past_inputs]
    parts = (applied, outputs[:, :-1], plan, expected, disturbance, np.ones((batch, 1), np.float32))
    following = np.concatenate([part.reshape(batch, -1) for part in parts], axis=1)
    status = np.where(is_plain, np.float32(Status.KEPT), np.float32(Status.CORRECTED))
    return action, margin[:, None], status[:, None], following


def split_constants(
    horizon: Horizon, constants: Sequence[AnyArray]
) -> tuple[Cost, list[NetworkLayer]]:
    """Give the constants of the operation their names."""
    start = horizon.layers_start
    barrier = None if horizon.is_box else (constants[5], constants[6])
    rest, layers = list(constants[start:]), []
    for activation in horizon.activations:
        is_gated = activation == GATED
        weight, bias = rest[:2]
        layers.append(NetworkLayer(activation, weight, bias, rest[2] if is_gated else None))
        rest = rest[3 if is_gated else 2 :]
    low, high, tracking, effort, settings = constants[:5]
    return Cost(low, high, tracking, effort, settings[:1], settings[1:], barrier), layers


def _split_memory(horizon: Horizon, memory: Array) -> list[Array]:
    sizes = horizon.memory_sizes
    parts = np.split(memory, np.cumsum(sizes)[:-1], axis=1)
    batch = len(memory)
    parts[0] = parts[0].reshape(batch, -1, horizon.inputs)
    parts[1] = parts[1].reshape(batch, horizon.output_lags - 1, horizon.outputs)
    return parts


def _predict(known: _Known, plan: Array, samples: int, *, directions: int) -> list[Jet]:
    predicted: list[Jet] = []
    for k in range(1, samples + 1):
        jet = _first_layer(known, plan, predicted, k, directions)
        jet = _activate(known.layers[0], jet)
        for layer in known.layers[1:]:
            zero = np.zeros(len(layer.weight), np.float32)
            jet = Jet(
                multiply_add(jet.value, layer.weight, layer.bias),
                multiply_add(jet.first, layer.weight, zero),
                multiply_add(jet.second, layer.weight, zero),
            )
            jet = _activate(layer, jet)
        predicted.append(jet._replace(value=jet.value + known.disturbance))
    return predicted


def _first_layer(
    known: _Known, plan: Array, predicted: Sequence[Jet], k: int, directions: int
) -> Jet:
    horizon, weight = known.horizon, known.layers[0].weight
    m, p, control = horizon.inputs, horizon.outputs, horizon.control
    moved = horizon.input_lags * m
    by_output = weight[:, moved : horizon.lagged]
    lags = []
    first = np.zeros((len(plan), directions, len(weight)), np.float32)
    for lag in range(horizon.input_lags):
        j = min(k - lag, control)
        if k <= lag:
            lags.append(known.applied[:, lag - k])
            continue
        lags.append(plan[:, (j - 1) * m : j * m])
        for i in range(m if directions else 0):
            first[:, (j - 1) * m + i] += weight[:, lag * m + i]
    value = multiply_add(np.concatenate(lags, axis=1), weight[:, :moved], known.base)
    earlier = range(1, horizon.output_lags + 1)
    seen = [
        predicted[k - lag - 1].value if k > lag else known.outputs[:, lag - k] for lag in earlier
    ]
    value = multiply_add(np.concatenate(seen, axis=1), by_output, value)
    count = horizon.pairs if directions else 0
    second = np.zeros((len(plan), count, len(weight)), np.float32)
    if k > 1 and directions:
        tangents = [predicted[k - lag - 1].first for lag in earlier if k > lag]
        first = multiply_add(
            np.concatenate(tangents, axis=2), by_output[:, : len(tangents) * p], first
        )
    if k > 1 and count:
        tangents = [predicted[k - lag - 1].second for lag in earlier if k > lag]
        second = multiply_add(
            np.concatenate(tangents, axis=2), by_output[:, : len(tangents) * p], second
        )
    return Jet(value, first, second)


def _activate(layer: NetworkLayer, x: Jet) -> Jet:
    if layer.reset_bias is not None:
        return _gate(x, layer.reset_bias)
    return x if layer.activation == "none" else _apply(x, layer.activation)


def _apply(x: Jet, activation: str) -> Jet:
    a = FUNCTIONS[activation](x.value, _ZERO)
    match activation:
        case "relu":
            slope = np.where(a > _ZERO, _ONE, _ZERO)
            bend = np.zeros_like(a)
        case "tanh":
            slope = _ONE - a * a
            bend = -_TWO * a * slope
        case _:
            slope = a * (_ONE - a)
            bend = slope * (_ONE - _TWO * a)
    second = x.second
    if second.shape[1]:
        left, right = (x.first[:, index] for index in pairs(x.first.shape[1]))
        second = slope[:, None] * second + bend[:, None] * (left * right)
    return Jet(a, x.first * slope[:, None], second)


def _gate(x: Jet, bias: Array) -> Jet:
    n = len(bias)
    gates = _apply(Jet(*(part[..., : 2 * n] for part in x)), "sigmoid")
    raw = Jet(
        *(part[..., 2 * n :] + gate[..., n:] * bias for part, gate in zip(x, gates, strict=True))
    )
    candidate = _apply(raw, "tanh")
    z, dz, d2z = (part[..., :n] for part in gates)
    c, dc, d2c = candidate
    keep = _ONE - z
    first = keep[:, None] * dc - dz * c[:, None]
    second = d2c
    if second.shape[1]:
        h, g = pairs(dz.shape[1])
        crossed = dz[:, h] * dc[:, g] + dz[:, g] * dc[:, h]
        second = keep[:, None] * d2c - crossed - d2z * c[:, None]
    return Jet(keep * c, first, second)

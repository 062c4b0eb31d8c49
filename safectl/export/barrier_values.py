"""Barriers as operations: their values and gradients at a state."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from safectl.barriers import (
    Discs,
    HalfSpaces,
    Minimum,
    ObservedDiscs,
    RelativeDegreeTwo,
    SoftMinimum,
    Stack,
    StoppingDistance,
    Superellipse,
)
from safectl.dynamics import LinearDynamics
from safectl.errors import UnsupportedLayer
from safectl.export.models import Motion, constant
from safectl.export.ops import Loop, Op
from safectl.export.trace import Tracer
from safectl.types import Barrier

Numbers = NDArray[np.float64]
_Pair = tuple[str, str]
_Append = Callable[[Tracer, _Pair], None]

_EXPONENTS = (2.0, 4.0, 8.0)
SUPPORTED_BARRIERS = (
    *("HalfSpaces", "Discs", "ObservedDiscs", "StoppingDistance", "Superellipse (2, 4 or 8)"),
    *("RelativeDegreeTwo of HalfSpaces or Discs under LinearDynamics", "Minimum", "SoftMinimum"),
    "Stack of these",
)


def parts_of(barrier: Barrier) -> list[Barrier]:
    """Return the barriers of nested stacks in order.

    Raises:
        UnsupportedLayer: If one of them has no operations.
    """
    if isinstance(barrier, Stack):
        return [part for inner in barrier.barriers for part in parts_of(inner)]
    problem = _problem(barrier)
    if problem is None:
        return [barrier]
    raise UnsupportedLayer(
        f"the barrier {type(barrier).__name__}{problem}",
        supported=SUPPORTED_BARRIERS,
        advice="State it by one of these, or keep this barrier on the host.",
    )


def _problem(barrier: Barrier) -> str | None:
    """Return why a barrier has no operations, None where it has."""
    match barrier:
        case Discs():
            return None if barrier.centres.ndim == 2 else " with centres of their own per row"
        case ObservedDiscs():
            return None if barrier.positions else " with centres relative to the robot"
        case Superellipse():
            fits = barrier.exponent in _EXPONENTS
            return None if fits else f" with exponent {barrier.exponent:g}"
        case RelativeDegreeTwo():
            inner, model = barrier.barrier, barrier.dynamics
            known = isinstance(inner, HalfSpaces | Discs) and _problem(inner) is None
            fits = known and isinstance(model, LinearDynamics)
            names = f"{type(inner).__name__} under {type(model).__name__}"
            return None if fits else f" of {names}"
        case Minimum() | SoftMinimum():
            parts_of(barrier.barrier)
            return None
    return None if isinstance(barrier, HalfSpaces | StoppingDistance) else ""


def append_barrier(
    tracer: Tracer, barrier: Barrier, motion: Motion, after: str, *, name: str
) -> tuple[str, str]:
    """Append h and dh/dx with respect to `moved_entries`, at a state.

    Args:
        tracer: Collects the operations.
        barrier: One of `parts_of`.
        motion: Says which entries of the state `after` holds.
        after: Value with the moving entries of the state.
        name: Begins the names of the values.

    Returns:
        Values h, (m,), and dh/dx, (m d,), d = number of `moved_entries`.

    Raises:
        UnsupportedLayer: If the barrier reads a position that the model does not move, or a centre
            that it does.
    """
    outputs = (name, f"{name}_gradient")
    stem = name.partition("_")[0]
    steady = f"{stem}_slopes"
    if tracer.has(name):
        return name, steady if tracer.has(steady) else outputs[1]
    entries = pick(tracer, after, places(motion, moved_entries(barrier)), name=f"{name}_at")
    if is_affine(barrier):
        slopes, offsets = _affine(barrier)
        tracer.dense(entries, slopes, offsets, name=name)
        if not tracer.has(steady):
            constant(tracer, after, slopes, name=steady)
        return name, steady
    match barrier:
        case StoppingDistance():
            _stopping_distance(tracer, barrier, entries, outputs)
        case Discs():
            centres = f"{stem}_centres"
            if not tracer.has(centres):
                constant(tracer, after, barrier.centres.double().numpy(), name=centres)
            return _turned(tracer, barrier.inside, outputs, _discs(barrier, entries, centres))
        case ObservedDiscs():
            indices = [index for centre in barrier.centres for index in centre]
            if set(indices) & set(motion.moving):
                raise UnsupportedLayer(
                    "discs that the model moves",
                    supported=("discs that stand still",),
                    advice="Keep this barrier on the host.",
                )
            centres = pick(tracer, motion.state, indices, name=f"{stem}_centres")
            _discs(barrier, entries, centres)(tracer, outputs)
        case Superellipse():
            return _turned(tracer, barrier.inside, outputs, _superellipse(barrier, entries))
        case RelativeDegreeTwo(barrier=Discs() as discs):
            return _turned(
                tracer, discs.inside, outputs, _second_order_discs(barrier, discs, entries)
            )
        case Minimum() | SoftMinimum():
            _least(tracer, barrier, motion, after, outputs)
    return outputs


def moved_entries(barrier: Barrier) -> tuple[int, ...]:
    """Return the entries of the state that a barrier is differentiated by."""
    match barrier:
        case StoppingDistance():
            return (*barrier.positions, *barrier.velocities)
        case RelativeDegreeTwo():
            return tuple(range(barrier.dynamics.nx))
        case Minimum() | SoftMinimum():
            entries = (moved_entries(part) for part in parts_of(barrier.barrier))
            return tuple(sorted({entry for part in entries for entry in part}))
    assert isinstance(barrier, HalfSpaces | Discs | ObservedDiscs | Superellipse), "see parts_of"
    return barrier.positions


def is_affine(barrier: Barrier) -> bool:
    """Return whether a barrier has one gradient everywhere."""
    if isinstance(barrier, RelativeDegreeTwo):
        return is_affine(barrier.barrier)
    return isinstance(barrier, HalfSpaces)


def _affine(barrier: Barrier) -> tuple[Numbers, Numbers]:
    """Return slopes (m, d) over `moved_entries` and offsets (m,) of an affine barrier."""
    if isinstance(barrier, HalfSpaces):
        return barrier.normals.double().numpy(), -barrier.offsets.double().numpy()
    assert isinstance(barrier, RelativeDegreeTwo), "is_affine says so"
    normals, offsets = _affine(barrier.barrier)
    where, rates = _second_order(barrier)
    return normals @ (rates + barrier.rate * where), barrier.rate * offsets


def _second_order(barrier: RelativeDegreeTwo) -> tuple[Numbers, Numbers]:
    """Return the matrices (d, nx) that pick the positions of the inner barrier and their rates."""
    assert isinstance(barrier.dynamics, LinearDynamics), "see parts_of"
    positions = list(moved_entries(barrier.barrier))
    return np.eye(barrier.dynamics.nx)[positions], barrier.dynamics.A.double().numpy()[positions]


def _stopping_distance(
    tracer: Tracer, barrier: StoppingDistance, entries: str, outputs: _Pair
) -> None:
    stem = outputs[0].partition("_")[0]
    constants = (
        tracer.constant(f"{stem}_low", barrier.low.numpy()),
        tracer.constant(f"{stem}_high", barrier.high.numpy()),
        tracer.constant(f"{stem}_period", [barrier.period]),
        tracer.constant(f"{stem}_step", [barrier.braking * barrier.period]),
    )
    tracer.op(Op("stopping_distance", (entries,), outputs, constants))


def _discs(barrier: Discs | ObservedDiscs, entries: str, centres: str) -> _Append:
    def append(tracer: Tracer, outputs: _Pair) -> None:
        stem = outputs[0].partition("_")[0]
        radius = tracer.constant(f"{stem}_radius", [barrier.radius])
        tracer.op(Op("discs", (entries, centres), outputs, (radius,)))

    return append


def _superellipse(barrier: Superellipse, entries: str) -> _Append:
    def append(tracer: Tracer, outputs: _Pair) -> None:
        stem = outputs[0].partition("_")[0]
        constants = (
            tracer.constant(f"{stem}_centre", barrier.centre.numpy()),
            tracer.constant(f"{stem}_inverse", 1.0 / barrier.radii.numpy()),
        )
        doublings = Loop(int(barrier.exponent).bit_length() - 1)
        tracer.op(Op("superellipse", (entries,), outputs, constants, detail=doublings))

    return append


def _second_order_discs(barrier: RelativeDegreeTwo, inner: Discs, entries: str) -> _Append:
    """Append u . v + rate h for h = |p - c| - radius, u = (p - c) / |p - c| and v = p'.

    The gradient is rate u + (v - (u . v) u) / |p - c| in p, and u in v.
    """
    centres, rate = inner.centres.double().numpy(), barrier.rate
    where, rates = _second_order(barrier)

    def append(tracer: Tracer, outputs: _Pair) -> None:
        name, (count, d) = outputs[0], centres.shape

        def op(kind: str, left: str, right: str, tag: str, rows: int = 1) -> str:
            return tracer.op(Op(kind, (left, right), (f"{name}_{tag}",), rows=rows))

        def scaled(value: str, gain: float, shift: float, tag: str) -> str:
            return tracer.affine(value, [gain], [shift], name=f"{name}_{tag}")

        def fixed(array: Numbers, tag: str) -> str:
            return constant(tracer, entries, array, name=f"{name}_{tag}")

        def per_axis(value: str, tag: str) -> str:
            return op("matmul", value, ones, tag, rows=count)

        ones = fixed(np.ones(d), "ones")
        position = tracer.dense(entries, where, None, name=f"{name}_position")
        velocity = tracer.dense(entries, rates, None, name=f"{name}_velocity")
        distance, unit = f"{name}_distance", f"{name}_unit"
        _discs(inner, position, fixed(centres, "centres"))(tracer, (distance, unit))
        along = op("matmul", unit, velocity, "along", rows=count)
        tracer.add(along, scaled(distance, rate, 0.0, "kept"), name=name)
        back = scaled(op("multiply", unit, per_axis(along, "share"), "part"), -1.0, 0.0, "back")
        moved = op("matmul", fixed(np.ones(count), "rows"), velocity, "moved", rows=count)
        reach = per_axis(scaled(distance, 1.0, inner.radius, "reach"), "reaches")
        turn = op("divide", tracer.add(moved, back, name=f"{name}_across"), reach, "turn")
        bent = tracer.add(turn, scaled(unit, rate, 0.0, "pull"), name=f"{name}_bent")
        tracer.add(
            op("matmul", bent, fixed(where, "where"), "by_position", rows=count),
            op("matmul", unit, fixed(rates, "rates"), "by_velocity", rows=count),
            name=outputs[1],
        )

    return append


def _least(
    tracer: Tracer, barrier: Minimum | SoftMinimum, motion: Motion, after: str, outputs: _Pair
) -> None:
    """Append the values of the parts side by side, then their (soft) minimum."""
    name, entries = outputs[0], moved_entries(barrier)
    stem, _, tag = name.partition("_")
    values, gradients = [], []
    for index, part in enumerate(parts_of(barrier.barrier)):
        value, gradient = append_barrier(tracer, part, motion, after, name=f"{stem}p{index}_{tag}")
        spread = np.zeros((len(moved_entries(part)), len(entries)))
        spread[np.arange(len(spread)), [entries.index(entry) for entry in moved_entries(part)]] = 1
        if not np.array_equal(spread, np.eye(len(entries))):
            matrix = constant(tracer, after, spread, name=f"{name}_spread{index}")
            pair, wide = (gradient, matrix), f"{name}_wide{index}"
            gradient = tracer.op(Op("matmul", pair, (wide,), rows=tracer.size(value)))
        values.append(value)
        gradients.append(gradient)
    inputs = (
        tracer.concat(values, name=f"{name}_all"),
        tracer.concat(gradients, name=f"{name}_slopes"),
    )
    sharpness: tuple[str, ...] = ()
    if isinstance(barrier, SoftMinimum):
        sharpness = (tracer.constant(f"{stem}_sharpness", [barrier.sharpness]),)
    tracer.op(Op("least", inputs, outputs, sharpness))


def _turned(tracer: Tracer, inside: bool, outputs: _Pair, append: _Append) -> _Pair:
    """Append the barrier of the outside, and for the inside the other sign."""
    if not inside:
        append(tracer, outputs)
        return outputs
    raw = (f"{outputs[0]}_outside", f"{outputs[1]}_outside")
    append(tracer, raw)
    for name, target in zip(raw, outputs, strict=True):
        tracer.affine(name, [-1.0], [0.0], name=target)
    return outputs


def places(motion: Motion, entries: Sequence[int]) -> list[int]:
    """Return where entries of the state stand among the moving ones."""
    still = [entry for entry in entries if entry not in motion.moving]
    if still:
        raise UnsupportedLayer(
            f"a barrier over the entries {still} of the state, which the model does not move",
            supported=(f"entries {list(motion.moving)}",),
            advice="Leave them out of the barrier, or model how they move.",
        )
    return [motion.moving.index(entry) for entry in entries]


def pick(tracer: Tracer, value: str, indices: Sequence[int], *, name: str) -> str:
    """Append some entries of a value; neighbours together, and nothing for all of them in order."""
    if tracer.has(name):
        return name
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1][1] = index + 1
        else:
            runs.append([index, index + 1])
    if runs == [[0, tracer.size(value)]]:
        return value
    if len(runs) == 1:
        return tracer.slice(value, *runs[0], name=name)
    parts = [
        tracer.slice(value, start, stop, name=f"{name}_{i}") for i, (start, stop) in enumerate(runs)
    ]
    return tracer.concat(parts, name=name)

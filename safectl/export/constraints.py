"""Constraints of a guarded program: their values and gradients at an action, as operations.

Every constraint is a value r(u) that must be zero or more, with its gradient in u where a
projection may use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from safectl.barriers import Discs, HalfSpaces, ObservedDiscs, Stack, StoppingDistance
from safectl.errors import UnsupportedLayer
from safectl.export.models import Motion, constant
from safectl.export.ops import Op
from safectl.export.trace import Tracer
from safectl.types import Barrier

SUPPORTED_BARRIERS = ("HalfSpaces", "Discs", "ObservedDiscs", "StoppingDistance", "Stack of these")


@runtime_checkable
class Constraint(Protocol):
    """What a projection needs to know."""

    @property
    def is_linear(self) -> bool:
        """Whether the gradient is the same at every action."""
        ...

    @property
    def backoff(self) -> str:
        """Value, how far inside each constraint corrections aim."""
        ...

    def room(self, tracer: Tracer, action: str, *, tag: str) -> str:
        """Append the constraint values at an action, (m,)."""
        ...

    def planes(self, tracer: Tracer, action: str, *, tag: str) -> tuple[str, str]:
        """Append the constraint values at an action, (m,), and their gradients, (m nu,)."""
        ...


@dataclass(frozen=True, slots=True)
class BarrierConstraint:
    """h(x[k+1]) - (1 - rate) h(x[k]) >= 0 for the mean prediction of a model.

    Attributes:
        barrier: Safe set {x : h(x) >= 0}, without stacks inside.
        motion: The model at the present state.
        index: Tells constraints of one program apart.
        slack: Value -(1 - rate) h(x[k]); None for a rate of one.
        backoff: Value, one number per constraint.
    """

    barrier: Barrier
    motion: Motion
    index: int
    slack: str | None
    backoff: str

    @property
    def is_linear(self) -> bool:
        """Half-spaces have one gradient everywhere."""
        return isinstance(self.barrier, HalfSpaces)

    def room(self, tracer: Tracer, action: str, *, tag: str) -> str:
        """Append h(x[k+1]) - (1 - rate) h(x[k])."""
        return self._evaluate(tracer, action, tag)[0]

    def planes(self, tracer: Tracer, action: str, *, tag: str) -> tuple[str, str]:
        """Append the same with its gradient: dh/dx at the prediction times the model's gain."""
        room, gradient = self._evaluate(tracer, action, tag)
        name = f"normals{self.index}" if self.is_linear else f"normals{self.index}_{tag}"
        if tracer.has(name):
            return room, name
        positions = moved_entries(self.barrier)
        rows = tracer.size(room)
        gain = pick(
            tracer, self.motion.gain, _rows(self.motion, positions), name=f"gain{self.index}"
        )
        return room, tracer.op(Op("matmul", (gradient, gain), (name,), rows=rows))

    def _evaluate(self, tracer: Tracer, action: str, tag: str) -> tuple[str, str]:
        after = predicted(tracer, self.motion, action, tag=tag)
        value, gradient = append_barrier(
            tracer, self.barrier, self.motion, after, name=f"h{self.index}_{tag}"
        )
        name = f"room{self.index}_{tag}"
        if self.slack is None or tracer.has(name):
            return value if self.slack is None else name, gradient
        return tracer.add(value, self.slack, name=name), gradient


@dataclass(frozen=True, slots=True)
class SignalConstraint:
    """bound - (c + g . u) >= 0 for learned signals that are affine in the action.

    Attributes:
        offset: Value bound - c, (m,).
        normals: Value -g, (m nu,).
        backoff: Value, one number per constraint.
        index: Tells constraints of one program apart.
    """

    offset: str
    normals: str
    backoff: str
    index: int

    @property
    def is_linear(self) -> bool:
        """It is affine in the action."""
        return True

    def room(self, tracer: Tracer, action: str, *, tag: str) -> str:
        """Append bound - c - g . u."""
        rows = tracer.size(self.offset)
        name = f"signal{self.index}_{tag}"
        if tracer.has(name):
            return name
        along = tracer.op(Op("matmul", (self.normals, action), (f"{name}_change",), rows=rows))
        return tracer.add(along, self.offset, name=name)

    def planes(self, tracer: Tracer, action: str, *, tag: str) -> tuple[str, str]:
        """Append the same with its gradient -g."""
        return self.room(tracer, action, tag=tag), self.normals


def parts_of(barrier: Barrier) -> list[Barrier]:
    """Return the barriers of nested stacks in order.

    Raises:
        UnsupportedLayer: If one of them has no operations.
    """
    if isinstance(barrier, Stack):
        return [part for inner in barrier.barriers for part in parts_of(inner)]
    own = isinstance(barrier, Discs) and barrier.centres.ndim == 2
    relative = isinstance(barrier, ObservedDiscs) and not barrier.positions
    known = isinstance(barrier, HalfSpaces | ObservedDiscs | StoppingDistance)
    if own or (known and not relative):
        return [barrier]
    detail = " with centres relative to the robot" if relative else ""
    raise UnsupportedLayer(
        f"the barrier {type(barrier).__name__}{detail}",
        supported=SUPPORTED_BARRIERS,
        advice="State it by one of these, or keep this barrier on the host.",
    )


def predicted(tracer: Tracer, motion: Motion, action: str, *, tag: str) -> str:
    """Append the moving entries of the next state, once per tag."""
    name = f"after_{tag}"
    if tracer.has(name):
        return name
    rows = len(motion.moving)
    change = tracer.op(Op("matmul", (motion.gain, action), (f"change_{tag}",), rows=rows))
    return tracer.add(motion.drift, change, name=name)


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
    entries = pick(tracer, after, _places(motion, moved_entries(barrier)), name=f"{name}_at")
    match barrier:
        case HalfSpaces():
            offsets = barrier.offsets.double().numpy()
            normals = barrier.normals.double().numpy()
            weight = tracer.constant(f"{stem}_weight", normals)
            bias = tracer.constant(f"{stem}_bias", -offsets)
            tracer.op(Op("dense", (entries,), (name,), (weight, bias)))
            if not tracer.has(steady):
                constant(tracer, after, normals, name=steady)
            return name, steady
        case StoppingDistance():
            constants = (
                tracer.constant(f"{stem}_low", barrier.low.numpy()),
                tracer.constant(f"{stem}_high", barrier.high.numpy()),
                tracer.constant(f"{stem}_period", [barrier.period]),
                tracer.constant(f"{stem}_step", [barrier.braking * barrier.period]),
            )
            tracer.op(Op("stopping_distance", (entries,), outputs, constants))
        case Discs():
            centres = f"{stem}_centres"
            if not tracer.has(centres):
                constant(tracer, after, barrier.centres.double().numpy(), name=centres)
            return _discs(tracer, barrier.radius, (entries, centres), outputs, barrier.inside)
        case ObservedDiscs():
            indices = [index for centre in barrier.centres for index in centre]
            if set(indices) & set(motion.moving):
                raise UnsupportedLayer(
                    "discs that the model moves",
                    supported=("discs that stand still",),
                    advice="Keep this barrier on the host.",
                )
            centres = pick(tracer, motion.state, indices, name=f"{stem}_centres")
            return _discs(tracer, barrier.radius, (entries, centres), outputs, False)
    return outputs


def moved_entries(barrier: Barrier) -> tuple[int, ...]:
    """Return the entries of the state that a barrier is differentiated by."""
    if isinstance(barrier, StoppingDistance):
        return (*barrier.positions, *barrier.velocities)
    assert isinstance(barrier, HalfSpaces | Discs | ObservedDiscs), "parts_of returns no other"
    return barrier.positions


def _discs(
    tracer: Tracer, radius: float, inputs: tuple[str, str], outputs: tuple[str, str], inside: bool
) -> tuple[str, str]:
    stem = outputs[0].partition("_")[0]
    size = tracer.constant(f"{stem}_radius", [radius])
    if not inside:
        tracer.op(Op("discs", inputs, outputs, (size,)))
        return outputs
    raw = (f"{outputs[0]}_outside", f"{outputs[1]}_outside")
    tracer.op(Op("discs", inputs, raw, (size,)))
    for name, target in zip(raw, outputs, strict=True):
        count = tracer.size(name)
        tracer.affine(name, -np.ones(count), np.zeros(count), name=target)
    return outputs


def _places(motion: Motion, entries: Sequence[int]) -> list[int]:
    """Return where entries of the state stand among the moving ones."""
    still = [entry for entry in entries if entry not in motion.moving]
    if still:
        raise UnsupportedLayer(
            f"a barrier over the entries {still} of the state, which the model does not move",
            supported=(f"entries {list(motion.moving)}",),
            advice="Leave them out of the barrier, or model how they move.",
        )
    return [motion.moving.index(entry) for entry in entries]


def _rows(motion: Motion, entries: Sequence[int]) -> list[int]:
    """Return the entries of the gain that belong to entries of the state."""
    places = _places(motion, entries)
    return [place * motion.nu + j for place in places for j in range(motion.nu)]


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


def append_backoff(tracer: Tracer, state: str, rows: int, *, ulps: float, name: str) -> str:
    """Append `ulps` units of rounding of 1 + the sum of the magnitudes of the state, `rows` times.

    The barrier filter in torch uses the largest magnitude; the sum is on the safe side.
    """
    sizes = tracer.op(Op("abs", (state,), (f"{name}_sizes",)))
    unit = ulps * torch.finfo(torch.float32).eps
    weight = np.full((rows, tracer.size(state)), unit)
    return tracer.dense(sizes, weight, np.full(rows, unit), name=name)

"""Constraints of a guarded program: their values and gradients at an action, as operations.

Every constraint is a value r(u) that must be zero or more, with its gradient in u where a
projection may use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from safectl.export.barrier_values import append_barrier, is_affine, moved_entries, pick, places
from safectl.export.models import Motion
from safectl.export.ops import Op
from safectl.export.trace import Tracer
from safectl.types import Barrier


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
        """Whether the barrier has one gradient everywhere."""
        return is_affine(self.barrier)

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


def predicted(tracer: Tracer, motion: Motion, action: str, *, tag: str) -> str:
    """Append the moving entries of the next state, once per tag."""
    name = f"after_{tag}"
    if tracer.has(name):
        return name
    rows = len(motion.moving)
    change = tracer.op(Op("matmul", (motion.gain, action), (f"change_{tag}",), rows=rows))
    return tracer.add(motion.drift, change, name=name)


def _rows(motion: Motion, entries: Sequence[int]) -> list[int]:
    """Return the entries of the gain that belong to entries of the state."""
    return [place * motion.nu + j for place in places(motion, entries) for j in range(motion.nu)]


def append_backoff(tracer: Tracer, state: str, rows: int, *, ulps: float, name: str) -> str:
    """Append `ulps` units of rounding of 1 + the sum of the magnitudes of the state, `rows` times.

    The barrier filter in torch uses the largest magnitude; the sum is on the safe side.
    """
    sizes = tracer.op(Op("abs", (state,), (f"{name}_sizes",)))
    unit = ulps * torch.finfo(torch.float32).eps
    weight = np.full((rows, tracer.size(state)), unit)
    return tracer.dense(sizes, weight, np.full(rows, unit), name=name)

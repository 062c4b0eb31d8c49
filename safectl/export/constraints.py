"""Constraints of a guarded program: their values and gradients at an action, as operations.

Every constraint is a value r(u) that must be zero or more, with its gradient in u where a
projection may use it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safectl.export.barrier_values import append_barrier, is_affine, moved_entries, pick, places
from safectl.export.models import Motion
from safectl.export.ops import Op
from safectl.export.program import action_limits
from safectl.export.trace import Tracer
from safectl.safeguards.fallback import Fallback
from safectl.safeguards.linear import BACKOFF_ULPS
from safectl.spec import Spec
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
class RowsConstraint:
    """offset + normals . u >= 0: learned signals that are affine in the action, or stated rows.

    Attributes:
        offset: Value, (m,).
        normals: Value, (m nu,).
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
        """Append offset + normals . u."""
        rows = tracer.size(self.offset)
        name = f"row{self.index}_{tag}"
        if tracer.has(name):
            return name
        along = tracer.op(Op("matmul", (self.normals, action), (f"{name}_change",), rows=rows))
        return tracer.add(along, self.offset, name=name)

    def planes(self, tracer: Tracer, action: str, *, tag: str) -> tuple[str, str]:
        """Append the same with its gradient."""
        return self.room(tracer, action, tag=tag), self.normals


@runtime_checkable
class StatedRows(Protocol):
    """A safeguard that keeps A u >= b, such as `ConvexGuard`, whose module needs CVXPY."""

    @property
    def fallback(self) -> Fallback:
        """Taken where the rows cannot be met."""
        ...

    @property
    def limits(self) -> tuple[Sequence[float], Sequence[float]]:
        """Lower and upper limits of the action."""
        ...

    def rows(self, observation: Tensor, action: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return A, (batch, m, nu), and b, (batch, m), at observations; actions only count."""
        ...


def stated_law(safeguard: StatedRows, spec: Spec) -> Callable[[Tensor], Tensor]:
    """Return the rows (-b, A) of a safeguard as a function of its observation, (batch, m (1 + nu)).

    Limits that are narrower than those of the specification are rows too.
    """
    low, high = (torch.tensor(limit, dtype=torch.float64) for limit in safeguard.limits)
    unit = torch.eye(spec.nu, dtype=torch.float64)
    narrow = [
        torch.cat([(sign * limit)[:, None], -sign * unit], 1)[sign * (own - limit) > 0.0]
        for sign, limit, own in zip(
            (-1.0, 1.0), (low, high), map(torch.from_numpy, action_limits(spec)), strict=True
        )
    ]

    def law(observation: Tensor) -> Tensor:
        normals, offsets = safeguard.rows(
            observation, observation.new_zeros(len(observation), spec.nu)
        )
        stated = torch.cat([-offsets.unsqueeze(-1), normals], -1)
        more = torch.cat(narrow).to(stated).expand(len(stated), -1, -1)
        return torch.cat([stated, more], 1).flatten(1)

    return law


def append_rows(
    tracer: Tracer,
    value: str,
    terms: Sequence[NDArray[np.float64]],
    *,
    sign: float,
    index: int,
) -> RowsConstraint:
    """Append sum(terms) + sign (c + g . u) >= 0.

    Args:
        tracer: The program.
        value: (c, g) of one row after the other, (m (1 + nu),).
        terms: Constants per row, (m,).
        sign: 1 or -1.
        index: Tells constraints of one program apart.
    """
    nu = tracer.spec.nu
    m, width = len(terms[0]), 1 + nu
    signs, unit = np.full(m, sign), BACKOFF_ULPS * torch.finfo(torch.float32).eps
    c = pick(tracer, value, range(0, m * width, width), name=f"c{index}")
    offset = tracer.affine(c, signs, sum(terms, np.zeros(m)), name=f"bound{index}")
    gains = [i * width + 1 + j for i in range(m) for j in range(nu)]
    g = pick(tracer, value, gains, name=f"g{index}")
    normals = tracer.affine(g, np.repeat(signs, nu), np.zeros(m * nu), name=f"down{index}")
    sizes = tracer.op(Op("abs", (value,), (f"sizes{index}",)))
    reach = np.maximum(*np.abs(action_limits(tracer.spec)))
    weight = unit * np.kron(np.eye(m), np.array([1.0, *reach]))
    constant = unit * sum((np.abs(term) for term in terms), np.zeros(m))
    backoff = tracer.dense(sizes, weight, constant, name=f"backoff{index}")
    return RowsConstraint(offset, normals, backoff, index)


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

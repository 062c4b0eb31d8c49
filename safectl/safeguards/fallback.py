"""The named actions that are taken when nothing better can be certified.

Every fallback returns finite actions within the limits of its `Spec`, whatever it observes.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards.evidence import Limits, action_limits, within
from safectl.spec import Spec
from safectl.types import Decision, Status

Law = Callable[[Tensor], Tensor]
"""A control law: observations (batch, nx) to actions (batch, nu)."""

Numbers = Sequence[float] | NDArray[np.floating]
"""One number per action signal."""


@runtime_checkable
class Fallback(Protocol):
    """An action that is chosen beforehand, with the specification whose limits it respects."""

    @property
    def name(self) -> str:
        """What records and claims call it."""
        ...

    @property
    def spec(self) -> Spec:
        """Signals of the robot."""
        ...

    def action(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        """Return a finite action within the limits for every row, also where the row is NaN."""
        ...


class Brake:
    """A fixed action, or a braking law.

    Args:
        spec: Signals of the robot.
        fixed: One value per action signal; also taken where the law is not finite. Zero by default.
        velocities: For actions that are accelerations: indices of the velocities, one per action;
            the law is u = -v / period, which stops within one period or brakes fully.
        law: Any other law, instead of `velocities`.

    Raises:
        ShapeError: If a length is not nu; from `action`, if the law gives another shape.
        RangeError: If the fixed action is not finite, or both `velocities` and `law` are given.
    """

    name = "brake"

    def __init__(
        self,
        spec: Spec,
        *,
        fixed: Numbers | None = None,
        velocities: Sequence[int] | None = None,
        law: Law | None = None,
    ) -> None:
        if velocities is not None and law is not None:
            raise RangeError("Brake", value="velocities and law", expected="at most one of them")
        for name, entries in (("fixed", fixed), ("velocities", velocities)):
            if entries is not None and len(entries) != spec.nu:
                raise ShapeError(name, expected=(spec.nu,), got=(len(entries),))
        self.spec = spec
        first = (0.0,) * spec.nu if fixed is None else fixed
        self.fixed = torch.tensor(first, dtype=torch.float64)
        if not bool(self.fixed.isfinite().all()):
            raise RangeError("fixed", value=tuple(first), expected="finite numbers")
        self.law = law if velocities is None else _stop_within(spec.period, list(velocities))

    def action(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        """Return the law's action within the limits, the fixed one where there is none."""
        fixed = self.fixed.to(observation).expand(len(observation), -1)
        if self.law is None:
            return fixed.clamp(*action_limits(self.spec, observation))
        proposed = self.law(observation)
        _require_shape(proposed, tuple(fixed.shape))
        usable = proposed.isfinite().all(-1, keepdim=True)
        return torch.where(usable, proposed, fixed).clamp(*action_limits(self.spec, observation))


class Hold:
    """The last certified action of each row, for a number of steps; then another fallback.

    It changes only through `remember` and `reset`; wrap the safeguard in `Remembering`, which calls
    them. With unlimited patience this is the "last safe action".

    Args:
        otherwise: Taken by rows that have nothing (any more) to repeat.
        rows: Number of rows of every batch.
        patience: How many steps in a row an action may be repeated.

    Raises:
        RangeError: If `rows` or `patience` is not positive.
    """

    name = "hold"

    def __init__(self, otherwise: Fallback, *, rows: int, patience: int | None = None) -> None:
        for name, number in (("rows", rows), ("patience", 1 if patience is None else patience)):
            if number < 1:
                raise RangeError(name, value=number, expected="at least 1")
        self.otherwise, self.patience = otherwise, patience
        self._last = torch.full((rows, otherwise.spec.nu), torch.nan, dtype=torch.float64)
        self._age = torch.zeros(rows, dtype=torch.int64)

    @property
    def spec(self) -> Spec:
        """Signals of the robot."""
        return self.otherwise.spec

    def action(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        """Return the remembered actions.

        Raises:
            ShapeError: If the batch does not have the number of rows given at construction.
        """
        require_rows(observation, len(self._last))
        last, usable = self._last.to(observation), self._last.isfinite().all(-1)
        if self.patience is not None:
            usable = usable & (self._age < self.patience)
        return torch.where(
            usable.to(observation.device).unsqueeze(-1), last, self.otherwise.action(observation)
        )

    def remember(self, decision: Decision, /) -> None:
        """Store the certified rows; count one more repetition for the others."""
        _require_shape(decision.action, tuple(self._last.shape))
        certified = (decision.certificate.status != Status.FALLBACK.value).to(self._last.device)
        self._last = torch.where(
            certified.unsqueeze(-1), decision.action.to(self._last), self._last
        )
        self._age = torch.where(certified, torch.zeros_like(self._age), self._age + 1)

    def reset(self, rows: Bool[Tensor, " batch"], /) -> None:
        """Forget the marked rows: a new episode begins there."""
        require_rows(rows, len(self._last))
        marked = rows.to(self._last.device)
        self._last = torch.where(marked.unsqueeze(-1), torch.nan, self._last)
        self._age = torch.where(marked, 0, self._age)


def fallback_action(
    fallback: Fallback, observation: Float[Tensor, "batch nx"], limits: Limits
) -> Float[Tensor, "batch nu"]:
    """Ask a fallback for its action, trusting neither its shape, nor its limits, nor finiteness.

    Raises:
        ShapeError: If the action does not have the shape (batch, nu).
    """
    action = fallback.action(observation)
    _require_shape(action, (len(observation), limits.low.shape[-1]))
    return within(action.to(observation), limits)


def require_rows(batch: Tensor, rows: int) -> None:
    """Refuse a batch of another size than a memory was made for.

    Raises:
        ShapeError: With both sizes.
    """
    if len(batch) != rows:
        raise ShapeError("batch", expected=(rows, "n"), got=tuple(batch.shape))


def _require_shape(action: Tensor, expected: tuple[int, ...]) -> None:
    if action.shape != expected:
        raise ShapeError("fallback action", expected=expected, got=tuple(action.shape))


def _stop_within(period: float, velocities: list[int]) -> Law:
    def law(observation: Tensor) -> Tensor:
        if observation.shape[1] <= max(velocities):
            expected = ("batch", max(velocities) + 1)
            raise ShapeError("observation", expected=expected, got=tuple(observation.shape))
        return -observation[:, velocities] / period

    return law

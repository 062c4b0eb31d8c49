"""A safeguard over constraints stated in CVXPY."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from safectl.barriers import HalfSpaces, box
from safectl.errors import RangeError, ShapeError
from safectl.safeguards.evidence import Limits, at_the_door, check_batch, finite_rows
from safectl.safeguards.fallback import Fallback
from safectl.safeguards.linear import Rows, filter_linear
from safectl.solve.convex import ConvexSet
from safectl.types import Decision


class ConvexGuard:
    """Keeps every action in a set that is stated in CVXPY, by the smallest change.

    It runs the lowered constraints A u >= b; the margin is the smallest entry of A u - b, in the
    unit of the constraint as stated. Not promised: anything about equalities. They leave no room
    for rounding, so that their rows end in the fallback; state them as two inequalities with a
    tolerance.

    Args:
        constraints: The set, with its own limits of the action.
        features: Values of its parameters from observations (batch, nx), one tensor per name.
        fallback: Taken where the set is empty.
        claim: What the constraints mean, in one sentence.

    Raises:
        ShapeError: If the set and the specification of the fallback disagree on nu.
        RangeError: If the limits of the set are wider than those of the specification.
    """

    def __init__(
        self,
        constraints: ConvexSet,
        features: Callable[[Tensor], Mapping[str, Tensor]],
        *,
        fallback: Fallback,
        claim: str,
    ) -> None:
        spec = fallback.spec
        if constraints.nu != spec.nu:
            raise ShapeError("action", expected=(spec.nu,), got=(constraints.nu,))
        pairs = zip(constraints.low, constraints.high, spec.action, strict=True)
        for low, high, signal in pairs:
            if low < signal.low or high > signal.high:
                raise RangeError(
                    f"limits of {signal.name!r} in the set",
                    value=(low, high),
                    expected=f"within [{signal.low}, {signal.high}]",
                )
        self.constraints, self.features = constraints, features
        self.fallback, self._claim = fallback, claim

    @property
    def claim(self) -> str:
        """What the constraints mean."""
        return f"{self._claim}; fallback: {self.fallback.name}"

    @property
    def limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lower and upper limits of the action in the set."""
        return self.constraints.low, self.constraints.high

    def rows(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> tuple[Float[Tensor, "batch m nu"], Float[Tensor, "batch m"]]:
        """Return A and b of A u >= b at observations; actions only give number and dtype.

        Raises:
            UnknownNameError, ConvexityError, ShapeError: If the features are not the parameters.
        """
        return self.constraints.rows(self.features(observation), action)

    @torch.no_grad()
    def filter(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Return the nearest action in the set, or the fallback.

        Raises:
            ShapeError, RangeError: As `check_batch`; what the observation holds is up to the
                features, so its width is not checked.
            UnknownNameError, ConvexityError, ShapeError: If the features are not the parameters.
        """
        check_batch(self.fallback.spec, observation, action)
        seen = finite_rows(observation)
        normals, offsets = self.rows(at_the_door(seen, observation), action)
        low, high = self.limits
        return filter_linear(
            observation,
            action,
            Rows(normals, offsets, offsets.abs()),
            Limits(action.new_tensor(low), action.new_tensor(high)),
            self.fallback,
            start=action,
            seen=seen,
            usable=seen & finite_rows(action),
            risk=0.0,
        )


def stated_barrier(constraints: ConvexSet, positions: Sequence[int]) -> HalfSpaces:
    """Return a set of positions stated in CVXPY, with its limits, as a barrier.

    Args:
        constraints: A set without parameters; its variable holds the positions.
        positions: Indices of these positions in the state.

    Raises:
        ConvexityError: If the set has parameters.
        ShapeError: If the number of positions differs.
    """
    if len(positions) != constraints.nu:
        raise ShapeError("positions", expected=(constraints.nu,), got=(len(positions),))
    point = torch.zeros(1, constraints.nu, dtype=torch.float64)
    normals, offsets = constraints.rows({}, point)
    limits = box(constraints.low, constraints.high, positions=positions)
    return HalfSpaces(
        torch.cat([normals[0], limits.normals]),
        torch.cat([offsets[0], limits.offsets]),
        positions=positions,
    )

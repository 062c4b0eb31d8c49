"""Actions whose predicted probability of a visit to an unsafe set stays below a limit."""

from collections.abc import Callable
from itertools import product

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from safectl.errors import RangeError
from safectl.safeguards.evidence import (
    Candidate,
    action_limits,
    at_the_door,
    blind,
    check_batch,
    decide,
    finite_rows,
)
from safectl.spec import Spec
from safectl.types import Decision

_MAX_CORNERED = 6
"""Actions up to which every corner is tried: 64 corners."""


class VisitLimit:
    """Keeps an action whose bound is within the limit, else takes the nearest candidate that is.

    The candidates are the same for every row: the middle of the action limits, their corners where
    there are at most 6 actions, and points of a Sobol sequence between. The fallback is the
    candidate of least `order`; of equal ones the first of that list, so the middle where nothing is
    known of any.

    Not promised: anything where the bound does not hold, see `claim`.

    Args:
        bound: Upper bound on the probability of a visit, (batch, nx) and (batch, nu) to (batch,).
        steps: Within how many steps the bound counts a visit, >= 1.
        spec: Signals of the robot; gives the action limits, which must be finite.
        limit: Largest admissible bound, in (0, 1).
        candidates: How many points of the sequence are tried besides the proposal, the middle and
            the corners, >= 1.
        order: Predicted occupancy, which the fallback makes least, of the shapes of `bound`; the
            bound where absent. A bound from a table is the same for many actions and tells them
            apart no further.

    Raises:
        RangeError: If a number is out of range.
    """

    def __init__(
        self,
        bound: Callable[[Tensor, Tensor], Tensor],
        *,
        spec: Spec,
        limit: float,
        steps: int,
        candidates: int = 64,
        order: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        if not 0.0 < limit < 1.0:
            raise RangeError("limit", value=limit, expected="a number in (0, 1)")
        if candidates < 1:
            raise RangeError("candidates", value=candidates, expected=">= 1")
        if steps < 1:
            raise RangeError("steps", value=steps, expected=">= 1")
        self.bound, self.spec, self.limit, self.order = bound, spec, limit, order
        self.steps = steps
        self.unit_points = _unit_points(spec.nu, candidates)

    @property
    def claim(self) -> str:
        """What the certificate asserts, and under which assumption."""
        least = "bound" if self.order is None else "occupancy"
        return (
            f"the unsafe set is visited within {self.steps} steps with probability <= "
            f"{self.limit:g} if the task's policy follows and the bound holds, that is for starts "
            "drawn like those of the calibration rollouts; fallback: the candidate of least "
            f"predicted {least}, the middle of the limits where it is unknown"
        )

    @torch.no_grad()
    def filter(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Return the proposal, the nearest candidate within the limit, or the fallback.

        Raises:
            ShapeError, RangeError: As `check_batch`.
        """
        check_batch(self.spec, observation, action, width=self.spec.nx)
        limits = action_limits(self.spec, action)
        usable = finite_rows(observation) & finite_rows(action)
        seen = at_the_door(finite_rows(observation), observation)
        proposal = at_the_door(usable, action)
        tried = limits.low + self.unit_points.to(action) * (limits.high - limits.low)
        tried = tried.clamp(*limits)  # rounding may end an ulp beyond
        choices = torch.cat(
            [proposal.clamp(*limits)[:, None], tried.expand(len(action), *tried.shape)], 1
        )
        bounds = self._bounds(seen, choices)
        distance = (choices - proposal[:, None]).square().sum(-1)
        nearest = torch.where(bounds <= self.limit, distance, torch.inf).argmin(1)
        fallback = self._candidate(choices, bounds, self._least(seen, choices, bounds))
        return decide(
            action,
            self._candidate(choices, bounds, nearest),
            blind(fallback, finite_rows(observation)),
            limits=limits,
            usable=usable,
        )

    def _bounds(
        self, observation: Float[Tensor, "batch nx"], choices: Float[Tensor, "batch n nu"]
    ) -> Float[Tensor, "batch n"]:
        """Return the bound of every choice; 1 where it is no probability."""
        rows, count = choices.shape[:2]
        repeated = observation.repeat_interleave(count, 0)
        found = self.bound(repeated, choices.flatten(0, 1)).reshape(rows, count)
        return torch.where((found >= 0.0) & (found <= 1.0), found, 1.0)

    def _least(self, observation: Tensor, choices: Tensor, bounds: Tensor) -> Tensor:
        """Return which choice the fallback takes; it matters where none is within the limit."""
        least, lost = _first_least(bounds), (bounds > self.limit).all(1)
        if self.order is not None and bool(lost.any()):
            asked = choices[lost]
            repeated = observation[lost].repeat_interleave(asked.shape[1], 0)
            order = self.order(repeated, asked.flatten(0, 1)).reshape(asked.shape[:2])
            least[lost] = _first_least(torch.where(order.isnan(), torch.inf, order))
        return least

    def _candidate(self, choices: Tensor, bounds: Tensor, chosen: Tensor) -> Candidate:
        """Return the chosen actions with their bound and the margin limit - bound."""
        rows = torch.arange(len(choices), device=choices.device)
        bound = bounds[rows, chosen]
        margin = self.limit - bound
        return Candidate(choices[rows, chosen], margin, (-margin).clamp(min=0.0), bound)


def _first_least(values: Float[Tensor, "batch n"]) -> Int[Tensor, " batch"]:
    """Return where a row is least; of equal places the first one after the proposal's, place 0."""
    return (values.roll(-1, 1).argmin(1) + 1) % values.shape[1]


def _unit_points(nu: int, count: int) -> Float[Tensor, "points nu"]:
    """Return the middle, the corners if they are few, and points between, in [0, 1]."""
    sequence = torch.quasirandom.SobolEngine(nu)  # type: ignore[no-untyped-call]  # torch
    corners = product((0.0, 1.0), repeat=nu) if nu <= _MAX_CORNERED else ()
    chosen = torch.tensor([(0.5,) * nu, *corners])
    return torch.cat([chosen, sequence.draw(count)])

"""The linear safety layer: a learned signal kept below its limit by a projection.

Source: Dalal, Dvijotham, Vecerik, Hester, Paduraru and Tassa, "Safe Exploration in Continuous
Action Spaces", 2018 (arXiv:1801.08757), section "Safety Layer via Analytical Optimization". The
paper's closed form treats the most violated constraint alone and no action limits; here all
constraints and the limits are met at once.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards.affine_signal import AffineSignalModel
from safectl.safeguards.evidence import action_limits, at_the_door, check_batch, finite_rows
from safectl.safeguards.fallback import Fallback
from safectl.safeguards.fit_signal import Calibration
from safectl.safeguards.linear import Rows, filter_linear
from safectl.spec import Spec
from safectl.types import Decision


class Least:
    """The action within the limits that minimises the predicted signal, as a fallback.

    Of several signals it is the one that comes closest to its limit (or exceeds it most) even at
    its own best action. Entries of the action without influence are zero, within the limits.

    Args:
        spec: Signals of the robot.
        model: Coefficients of the signal.
        limit: One per signal, in its unit.
    """

    name = "least"

    def __init__(self, spec: Spec, model: AffineSignalModel, *, limit: Sequence[float]) -> None:
        if len(limit) != model.m:
            raise ShapeError("limit", expected=(model.m,), got=(len(limit),))
        self.spec, self.model, self.limit = spec, model, tuple(limit)

    @torch.no_grad()
    def action(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        """Return a vertex of the box of limits; zero within the limits where the row is NaN."""
        low, high = action_limits(self.spec, observation)
        seen = finite_rows(observation)
        offset, gain = self.model.forward(at_the_door(seen, observation))
        centre = torch.zeros_like(low).clamp(low, high)
        best = torch.where(gain > 0.0, low, torch.where(gain < 0.0, high, centre))
        excess = offset + (gain * best).sum(-1) - offset.new_tensor(self.limit)
        chosen = best[torch.arange(len(best), device=best.device), excess.argmax(-1)]
        return torch.where(seen.unsqueeze(-1), chosen, centre)


class SafetyLayer:
    """Keeps c(o) + g(o) u + margin at or below a limit, by the smallest change of the action.

    The proposal is first clipped to the action limits, and the clipped one changed least, as in the
    exported program. Here `KEPT` means that neither changed it; the program does not know the
    proposal before the clip, so a clipped and admissible one is `CORRECTED` here and `KEPT` there.

    With a `rate`, the limit is approached gradually: the bound on y[k+1] is y + rate (limit - y).
    A signal above its limit must be back in one step.

    Not promised: anything for states and actions unlike those of the calibration data, see
    `Calibration`; the risk in the certificate is under that assumption, and 1 in a fallback.

    Args:
        model: Coefficients of the signal.
        calibration: Its margin and the probability delta of a larger error.
        spec: Signals of the robot; gives the action limits.
        limit: One per signal, in its unit.
        fallback: `Least` by default.
        rate: Share of the distance to the limit that one step may use, in (0, 1].
        signal: Current signals (batch, m) from observations (batch, nx); needed below rate 1.

    Raises:
        ShapeError: If model, specification, calibration and limit disagree on a size.
        RangeError: If the rate is out of range, `signal` is missing or a limit is not finite.
    """

    def __init__(
        self,
        model: AffineSignalModel,
        calibration: Calibration,
        *,
        spec: Spec,
        limit: Sequence[float],
        fallback: Fallback | None = None,
        rate: float = 1.0,
        signal: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        sizes = (("observation", model.nx, spec.nx), ("action", model.nu, spec.nu))
        for name, expected, got in (*sizes, ("limit", model.m, len(limit))):
            if expected != got:
                raise ShapeError(name, expected=(expected,), got=(got,))
        if not all(math.isfinite(entry) for entry in limit):
            raise RangeError("limit", value=tuple(limit), expected="finite numbers")
        if calibration.margin.shape != (model.m,):
            raise ShapeError("margin", expected=(model.m,), got=tuple(calibration.margin.shape))
        if not 0.0 < rate <= 1.0:
            raise RangeError("rate", value=rate, expected="a number in (0, 1]")
        if rate < 1.0 and signal is None:
            raise RangeError("signal", value=None, expected="a function, because rate < 1")
        self.model, self.calibration, self.spec = model, calibration, spec
        self.limit, self.rate, self.signal = tuple(limit), rate, signal
        self.fallback = fallback or Least(spec, model, limit=limit)

    @property
    def claim(self) -> str:
        """The bound on the next signal, and under which assumption."""
        bound = "limit" if self.rate == 1.0 else f"min(limit, y + {self.rate:g} (limit - y))"
        return (
            f"y[k+1] <= {bound} with probability >= {1.0 - self.calibration.delta:g} for "
            f"transitions drawn like the calibration data; fallback: {self.fallback.name}"
        )

    @torch.no_grad()
    def filter(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Return the nearest action whose prediction leaves the margin, or the fallback.

        Raises:
            ShapeError, RangeError: As `check_batch`, or if `signal` gives another shape.
        """
        check_batch(self.spec, observation, action, width=self.spec.nx)
        limits = action_limits(self.spec, action)
        seen = finite_rows(observation)
        return filter_linear(
            observation,
            action,
            self._rows(at_the_door(seen, observation)),
            limits,
            self.fallback,
            start=action.clamp(*limits),
            seen=seen,
            usable=seen & finite_rows(action),
            risk=self.calibration.delta,
        )

    def _rows(self, observation: Tensor) -> Rows:
        offset, gain = self.model.forward(observation)
        limit, margin = offset.new_tensor(self.limit), self.calibration.margin.to(offset)
        if self.signal is not None and self.rate < 1.0:
            signal = self.signal(observation)
            if signal.shape != offset.shape:
                expected = tuple(offset.shape)
                raise ShapeError("signal", expected=expected, got=tuple(signal.shape))
            now = torch.minimum(signal, limit)
            limit = now + self.rate * (limit - now)
        return Rows(-gain, offset + margin - limit, offset.abs() + margin.abs() + limit.abs())

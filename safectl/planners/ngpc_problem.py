"""What neural generalised predictive control minimises, as a frozen value."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError, ShapeError

Vector = npt.NDArray[np.float64]

ROUNDING = 1e-12
"""How far below zero, relative to the largest entry, rounding takes an eigenvalue that is zero."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NgpcProblem:
    """Cost, limits and solver of neural generalised predictive control.

    At sample n the plan u(n+1) ... u(n+Nu) minimises

        J = sum_{k=N1..N2} e(n+k)' Q e(n+k) + sum_{j=1..Nu} du(n+j)' L du(n+j)
          + sum over plan and inputs of s/(u + r/2 - b) + s/(r/2 + b - u) - 4 s/r

    with e = reference - prediction, du(n+j) = u(n+j) - u(n+j-1) and u(n+k) = u(n+Nu) beyond Nu.
    Source: Soloway and Haley, NASA TM-110244 (1997); the constant is theirs times s, so that the
    least barrier is zero for every s.

    The network predicts y(n) from [u(n) ... u(n-nd+1), y(n-1) ... y(n-dd), sensors], newest first.

    Attributes:
        outputs: p, entries of y.
        sensors: Entries of the sensor signals, held over the horizon; 0 for none.
        input_lags: nd, input samples the network reads, >= 1.
        output_lags: dd, output samples the network reads, >= 1.
        first: N1, first sample of the cost, >= 1.
        last: N2, last sample of the cost, >= first.
        control: Nu, samples in which the input may move, 1 to last.
        tracking: Q, shape (p, p) or its diagonal (p,), positive semi-definite, [1 / y^2].
        effort: L, shape (m, m) or its diagonal (m,), positive semi-definite, [1 / u^2].
        low: Lower input limits, shape (m,), units of u.
        high: Upper input limits, shape (m,), units of u.
        sharpness: s of the barrier, in [units of u]; 0 replaces it by the exact box.
        widening: r over the width of the limits, > 1, so that a limit itself has a finite barrier.
        iterations: Newton steps per sample, >= 1.
        has_curvature: Whether the Hessian holds the second derivatives of the network (Newton) or
            not (Gauss-Newton).
        disturbance_gain: Share of the one-step prediction error that is integrated into the
            disturbance estimate every sample, in [0, 1); the estimate is added to every predicted
            output inside the recursion.
        has_preview: Whether the reference holds one row per sample of the cost or one for all.

    Raises:
        RangeError: If a number is out of range.
        ShapeError: If sizes do not fit.
    """

    outputs: int
    sensors: int = 0
    input_lags: int = 2
    output_lags: int = 2
    first: int = 1
    last: int
    control: int = 1
    tracking: Vector
    effort: Vector
    low: Vector
    high: Vector
    sharpness: float = 1e-6
    widening: float = 1.01
    iterations: int = 1
    has_curvature: bool = False
    disturbance_gain: float = 0.2
    has_preview: bool = False
    inputs: int = field(init=False)
    """m, entries of u."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", len(self.low))
        for name in ("outputs", "input_lags", "output_lags", "first", "iterations", "inputs"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        _require("sensors", self.sensors, self.sensors >= 0, "0 or more")
        _require("last", self.last, self.last >= self.first, "at least first")
        _require("control", self.control, 1 <= self.control <= self.last, "1 to last")
        _require("sharpness", self.sharpness, self.sharpness >= 0.0, "0 or more")
        _require("widening", self.widening, self.widening > 1.0, "above 1")
        gain = self.disturbance_gain
        _require("disturbance_gain", gain, 0.0 <= gain < 1.0, "a number in [0, 1)")
        for name, size in (("tracking", self.outputs), ("effort", self.inputs)):
            object.__setattr__(self, name, _weight(name, getattr(self, name), size))
        for name in ("low", "high"):
            limit = np.array(getattr(self, name), np.float64)
            if limit.shape != (self.inputs,):
                raise ShapeError(name, expected=(self.inputs,), got=limit.shape)
            object.__setattr__(self, name, limit)
        width = self.high - self.low
        _require("high - low", width.tolist(), bool((width > 0.0).all()), "above 0")
        _require("limits", width.tolist(), bool(np.isfinite(width).all()), "finite")

    @property
    def decisions(self) -> int:
        """Nz, entries of the plan."""
        return self.control * self.inputs

    @property
    def model_inputs(self) -> int:
        """Entries of the vector that the network reads."""
        lags = self.input_lags * self.inputs + self.output_lags * self.outputs
        return lags + self.sensors

    @property
    def reference_rows(self) -> int:
        """Rows of the reference in an observation."""
        return self.last - self.first + 1 if self.has_preview else 1

    @property
    def observation_size(self) -> int:
        """Entries of an observation: measured y, sensors, reference."""
        return self.outputs + self.sensors + self.reference_rows * self.outputs

    @property
    def past_inputs(self) -> int:
        """Applied inputs that a controller remembers: u(n) is needed even if nd is 1."""
        return max(self.input_lags - 1, 1)

    @property
    def barrier_range(self) -> Vector:
        """Widths r, shape (m,)."""
        return self.widening * (self.high - self.low)

    @property
    def barrier_centre(self) -> Vector:
        """Centres b, shape (m,)."""
        return 0.5 * (self.high + self.low)


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise RangeError(name, value=value, expected=expected)


def _weight(name: str, given: Vector, size: int) -> Vector:
    weight = np.array(given, np.float64)
    if weight.shape == (size,):
        weight = np.diag(weight)
    if weight.shape != (size, size):
        raise ShapeError(name, expected=(size, size), got=weight.shape)
    is_symmetric = bool(np.isfinite(weight).all() and np.array_equal(weight, weight.T))
    _require(name, weight.tolist(), is_symmetric, "finite and symmetric")
    least, largest = float(np.linalg.eigvalsh(weight).min()), float(np.abs(weight).max())
    _require(f"least eigenvalue of {name}", least, least >= -ROUNDING * largest, "0 or more")
    return weight

"""The barrier quadratic program: the nearest action that keeps a barrier from falling too fast."""

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from safectl.barriers import linearise
from safectl.errors import RangeError, ShapeError
from safectl.safeguards.evidence import (
    Candidate,
    Limits,
    action_limits,
    at_the_door,
    blind,
    check_batch,
    decide,
    evidence,
    finite_rows,
)
from safectl.safeguards.fallback import Fallback, fallback_action
from safectl.solve import project
from safectl.types import Barrier, Decision, Dynamics, Gaussian

BACKOFF_ULPS = 32.0
"""Corrections aim this many units of rounding (of 1 + the largest entry of the state) inside the
constraint, so that the margin recomputed from the action is not negative, whatever the batch."""

PULLS = 2
"""Secant steps towards the fallback. One suffices where h(x[k+1]) is concave in u; the other
absorbs rounding."""

SETTLED = 1.0
"""Room that a row which needs no further step is given, so that the projection leaves it alone."""


class _Problem(NamedTuple):
    """One filter call: states (batch, nx), required h(x[k+1]) (batch, m), back-off, limits."""

    state: Tensor
    required: Tensor
    backoff: Tensor
    limits: Limits


class BarrierQP:
    """Discrete-time control barrier function as a projection.

    Solves min |u - proposal|^2 subject to h(x[k+1]) >= (1 - rate) h(x[k]) and the action limits,
    with x[k+1] the mean of the model's prediction (Agrawal and Sreenath, "Discrete control barrier
    functions for safety-critical control of discrete systems", RSS 2017). The constraint is
    linearised at the last iterate and the proposal projected on it, until the margin that is
    recomputed from the model is not negative, at most `iterations` times; one is exact for a linear
    model and half-spaces. Where the margin stays negative, secant steps lead back towards the
    fallback, if that is admissible; rows that still violate the constraint take the fallback.
    Where the first linearisation has no admissible action, the next starts from a corner of the
    limits. A fallback does not prove that no action is admissible: of
    random single integrators among discs at rate 0.3, 0.6 % have one and still fall back.

    With a `tolerance` delta it is a chance constraint: h is taken at the predicted mean less z
    standard deviations of h there (to first order), z the normal quantile of 1 - delta / m, so that
    all m constraints hold with probability >= 1 - delta. That is exact for half-spaces and a normal
    prediction, on the cautious side for discs to keep out of, and an approximation for other
    barriers. With `safectl.dynamics.Uncertain` the error of a measured state counts in h(x[k+1]);
    h(x[k]), which matters where the rate is below 1, is taken at the state as measured.

    Not promised: anything about the error of the model, about time between samples, or that the
    constraint can be met at all states; a state with h < 0 is led back at the given rate only. The
    risk is that of the prediction: 0 for a model without noise. Where the predicted covariance is
    not zero it is the tolerance; 1 without one, as nothing bounds the probability that h(x[k+1])
    falls short.

    Args:
        barrier: Safe set {x : h(x) >= 0}.
        dynamics: Predicts the next state; differentiable in the action.
        fallback: Taken where nothing is certified; its specification gives the action limits.
        rate: Share of h that may be lost in one period, in (0, 1].
        observe: Maps observations to states of the model; the identity by default.
        iterations: Linearisations per row and call, at most.
        escape: Whether in a state with h_i(x) < 0 every action that does not decrease h_i is
            admissible, so that a robot within a keep-out zone may drive out of it at any speed.
        tolerance: delta, the probability in (0, 0.5] of violating the condition under the model's
            noise; None asks for it at the mean prediction only.

    Raises:
        ShapeError: If the model and the specification disagree on nu.
        RangeError: If the rate, the iterations or the tolerance are out of range.
    """

    def __init__(
        self,
        barrier: Barrier,
        dynamics: Dynamics,
        *,
        fallback: Fallback,
        rate: float = 1.0,
        observe: Callable[[Tensor], Tensor] | None = None,
        iterations: int = 3,
        escape: bool = False,
        tolerance: float | None = None,
    ) -> None:
        if dynamics.nu != fallback.spec.nu:
            raise ShapeError("action", expected=(dynamics.nu,), got=(fallback.spec.nu,))
        if not 0.0 < rate <= 1.0:
            raise RangeError("rate", value=rate, expected="a number in (0, 1]")
        if iterations < 1:
            raise RangeError("iterations", value=iterations, expected="at least 1")
        if tolerance is not None and not 0.0 < tolerance <= 0.5:
            raise RangeError("tolerance", value=tolerance, expected="a number in (0, 0.5], or None")
        self.barrier, self.dynamics, self.fallback = barrier, dynamics, fallback
        self.rate, self.observe, self.iterations = rate, observe, iterations
        self.escape, self.tolerance = escape, tolerance
        _wake_autograd()

    @property
    def claim(self) -> str:
        """The condition on the barrier, under the model."""
        outside = ", and h(x[k+1]) >= h(x[k]) where h(x[k]) < 0," if self.escape else ""
        for_what = "for the mean prediction of the model"
        if self.tolerance is not None:
            for_what = f"with probability >= {1.0 - self.tolerance:g} under the noise of the model"
            for_what += "" if self.rate == 1.0 else " and h(x[k]) as measured"
        return (
            f"h(x[k+1]) >= {1.0 - self.rate:g} h(x[k]){outside} {for_what}; "
            f"fallback: {self.fallback.name}"
        )

    @torch.no_grad()
    def filter(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Return the nearest certified action per row, or the fallback.

        Raises:
            ShapeError, RangeError: As `check_batch`, or if `observe` does not give states.
        """
        width = self.dynamics.nx if self.observe is None else None
        check_batch(self.fallback.spec, observation, action, width=width)
        seen = finite_rows(observation)
        finite = seen & finite_rows(action)
        proposal = at_the_door(finite, action)
        problem = self._pose(at_the_door(seen, observation), action)
        kept = self._evaluate(problem, proposal)
        certified = finite & (kept.residual == 0.0)
        if bool(certified.all()):
            return decide(action, kept, kept, limits=problem.limits, usable=finite)
        fallback = fallback_action(self.fallback, observation, problem.limits)
        corrected = self._correct(problem, proposal, fallback, ~certified)
        candidate = last_resort = _merge(certified, kept, corrected)
        if not bool((finite & (candidate.residual == 0.0)).all()):
            last_resort = blind(self._evaluate(problem, fallback), seen)
        return decide(action, candidate, last_resort, limits=problem.limits, usable=finite)

    def _pose(self, observation: Tensor, action: Tensor) -> _Problem:
        state = observation if self.observe is None else self.observe(observation)
        if state.shape != (len(action), self.dynamics.nx):
            expected = (len(action), self.dynamics.nx)
            raise ShapeError("state", expected=expected, got=tuple(state.shape))
        now = self.barrier.value(state)
        required = (1.0 - self.rate) * now
        if self.escape:
            required = torch.where(now < 0.0, now, required)
        scale = BACKOFF_ULPS * torch.finfo(state.dtype).eps
        backoff = scale * (1.0 + state.abs().amax(-1, keepdim=True))
        return _Problem(state, required, backoff, action_limits(self.fallback.spec, action))

    def _room(self, problem: _Problem, action: Tensor) -> Tensor:
        prediction = self.dynamics.predict(problem.state, action)
        return self._lower_bound(prediction) - problem.required

    def _lower_bound(self, prediction: Gaussian) -> Tensor:
        if self.tolerance is None:
            return self.barrier.value(prediction.mean)
        value, gradient = linearise(self.barrier, prediction.mean)
        return self._tighten(value, gradient, prediction.covariance)

    def _tighten(self, value: Tensor, gradient: Tensor, covariance: Tensor) -> Tensor:
        """Return h at the mean, less z standard deviations of it if there is a tolerance."""
        if self.tolerance is None or value.shape[1] == 0:
            return value
        quantile = NormalDist().inv_cdf(1.0 - self.tolerance / value.shape[1])
        variance = ((gradient @ covariance) * gradient).sum(-1).clamp(min=0.0)
        return value - quantile * variance.sqrt()

    def _evaluate(self, problem: _Problem, action: Tensor) -> Candidate:
        prediction = self.dynamics.predict(problem.state, action)
        room = self._lower_bound(prediction) - problem.required
        covariance = prediction.covariance
        if not bool(covariance.any()):
            return evidence(action, room, problem.limits)
        noisy = (covariance != 0.0).flatten(1).any(1).to(room)
        risk = noisy if self.tolerance is None else self.tolerance * noisy
        return evidence(action, room, problem.limits, risk=risk)

    def _correct(
        self, problem: _Problem, proposal: Tensor, fallback: Tensor, rows: Tensor
    ) -> Candidate:
        low, high = problem.limits
        point, violates = proposal.clamp(low, high), rows.unsqueeze(-1)
        for iteration in range(self.iterations):
            room, normals = self._linearise(problem, point)
            along = (normals @ point.unsqueeze(-1)).squeeze(-1)
            offsets = along - torch.where(violates, room - problem.backoff, SETTLED)
            start = torch.where(violates, proposal, point)
            answer = project(start, normals, offsets, low, high)
            target, stuck = answer.point.clamp(low, high), violates & ~answer.feasible.unsqueeze(-1)
            moves = violates & ~stuck
            if iteration == 0 and bool(stuck.any()):
                corner = _corner(point, room, normals, problem.limits)
                target, moves = torch.where(stuck, corner, target), violates
            if not bool(moves.any()):
                break
            point = torch.where(moves, target, point)
            candidate = self._evaluate(problem, point)
            violates = candidate.residual.unsqueeze(-1) != 0.0
            if not bool(violates.any()):
                return candidate
        return self._pull(problem, point, fallback)

    def _linearise(self, problem: _Problem, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return the room (batch, m) and its gradient with respect to u (batch, m, nu).

        The gradient is that of h at the mean, as if the spread stayed. Each row is repeated m
        times, so that one backward pass serves all constraints.
        """
        m = problem.required.shape[1]
        if m == 0:
            return problem.required, action.new_zeros(len(action), 0, action.shape[1])
        with torch.enable_grad():
            leaf = _repeat(action, m).requires_grad_(True)
            mean, covariance = self.dynamics.predict(_repeat(problem.state, m), leaf)
        value, gradient = linearise(self.barrier, mean.detach()[::m])
        (normals,) = torch.autograd.grad(mean, leaf, gradient.flatten(0, 1))
        value = self._tighten(value, gradient, covariance.detach()[::m])
        return value - problem.required, normals.reshape(len(action), m, -1)

    def _pull(self, problem: _Problem, point: Tensor, fallback: Tensor) -> Candidate:
        """Move violating rows towards the fallback, to where the secant of each margin is zero.

        With margins a > 0 at the fallback and c < 0 at the point, the share of the way that is kept
        is (a - aim) / (a - c); a concave margin lies above its secant.
        """
        reserve = self._room(problem, fallback)
        aim = torch.minimum(problem.backoff, 0.5 * reserve)
        usable = (reserve >= 0.0).all(-1, keepdim=True)
        for _ in range(PULLS):
            room = self._room(problem, point)
            short = usable & (room < 0.0)
            if not bool(short.any()):
                break
            share = torch.where(short, (reserve - aim) / (reserve - room), 1.0)
            moved = fallback + share.amin(-1, keepdim=True) * (point - fallback)
            point = torch.where(short.any(-1, keepdim=True), moved, point)
            point = point.clamp(*problem.limits)
        return self._evaluate(problem, point)


def _wake_autograd() -> None:
    """Let torch import what its first such gradient needs: half a second of modules.

    Else the first correction would pay for it, and that comes when something is in the way.
    """
    leaf = torch.zeros(1, requires_grad=True)
    with torch.enable_grad():
        torch.autograd.grad(2.0 * leaf, leaf, torch.ones(1))


def _repeat(values: Tensor, times: int) -> Tensor:
    """Repeat each row in place, as `repeat_interleave` does, several times faster."""
    return values.unsqueeze(1).expand(-1, times, -1).flatten(0, 1).clone()


def _corner(point: Tensor, room: Tensor, normals: Tensor, limits: Limits) -> Tensor:
    """Return where, within the limits, the linearised constraint is best that is worst at its best.

    Entries of the action without influence on that constraint stay.
    """
    best = torch.where(normals > 0.0, limits.high, limits.low)
    best = torch.where(normals == 0.0, point.unsqueeze(1), best)  # (batch, m, nu)
    worst = (room + (normals * (best - point.unsqueeze(1))).sum(-1)).argmin(-1)
    return best[torch.arange(len(best), device=best.device), worst]


def _merge(rows: Tensor, one: Candidate, other: Candidate) -> Candidate:
    return Candidate(
        torch.where(rows.unsqueeze(-1), one.action, other.action),
        torch.where(rows, one.margin, other.margin),
        torch.where(rows, one.residual, other.residual),
        torch.where(rows, one.risk, other.risk),
    )

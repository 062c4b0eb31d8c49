"""Neural generalised predictive control: a learned model, a few Newton steps, the first input.

Every step has the same number of operations: fixed horizon, fixed Newton steps and bounded
attempts to factorise. A Newton step is projected on the limits, which lie inside the barrier.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.planners.forward_model import ForwardModel
from safectl.planners.ngpc_cost import Context, derivatives, predict
from safectl.planners.ngpc_problem import NgpcProblem
from safectl.types import Status

DAMPING = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 2.0)
"""Multiples of the size of the Hessian that are added to its diagonal, in turn, until it can be
factorised. The size is the sum of the magnitudes in its lower triangle, which no eigenvalue exceeds
(Gershgorin): the last works."""

LEAST_PIVOT = 1e-6
"""Smallest pivot of a factorisation relative to its diagonal entry: ten times float32 rounding."""


class NgpcState(NamedTuple):
    """What a controller remembers from sample to sample.

    Attributes:
        inputs: Applied inputs, newest first, shape (batch, past, m).
        outputs: Measured outputs, newest first, shape (batch, dd - 1, p).
        plan: Solution of the last sample, shape (batch, Nu, m).
        prediction: Expected measurement, shape (batch, p).
        disturbance: Integrated innovation, shape (batch, p).
        is_started: Whether there was a measurement, shape (batch,).
    """

    inputs: Float[Tensor, "batch past m"]
    outputs: Float[Tensor, "batch past_outputs p"]
    plan: Float[Tensor, "batch Nu m"]
    prediction: Float[Tensor, "batch p"]
    disturbance: Float[Tensor, "batch p"]
    is_started: Bool[Tensor, " batch"]


class NgpcStep(NamedTuple):
    """Result of one sample.

    Attributes:
        action: Input to apply now, within the limits, shape (batch, m).
        margin: Distance of the action from the nearest limit, shape (batch,), units of u.
        status: `KEPT` for the plain Newton step, `CORRECTED` where it was damped or limited,
            `FALLBACK` for the fail-safe input, shape (batch,).
        state: For the next sample.
    """

    action: Float[Tensor, "batch m"]
    margin: Float[Tensor, " batch"]
    status: Int8[Tensor, " batch"]
    state: NgpcState


@dataclass(frozen=True, slots=True, eq=False)
class Ngpc:
    """The controller: a problem and a network.

    Attributes:
        problem: What is minimised.
        model: Network of `problem.model_inputs` inputs and `problem.outputs` outputs.
        fail_safe: Input applied after a non-finite observation and taken as the last input before
            the first sample, shape (m,), within the limits.

    Raises:
        ShapeError: If the network does not fit the problem.
        RangeError: If the fail-safe input is outside the limits.
    """

    problem: NgpcProblem
    model: ForwardModel
    fail_safe: Float[Tensor, " m"]

    def __post_init__(self) -> None:
        expected = (self.problem.model_inputs, self.problem.outputs)
        got = (self.model.inputs, self.model.outputs)
        if got != expected:
            raise ShapeError("inputs and outputs of the network", expected=expected, got=got)
        low, high = _limits(self.problem, self.fail_safe)
        if self.fail_safe.shape != low.shape:
            raise ShapeError("fail_safe", expected=tuple(low.shape), got=self.fail_safe.shape)
        if not bool(((low <= self.fail_safe) & (self.fail_safe <= high)).all()):
            value = self.fail_safe.tolist()
            raise RangeError("fail_safe", value=value, expected="within the limits")

    def start(self, batch: int, like: Tensor) -> NgpcState:
        """Return the state before the first sample, with the dtype and device of `like`."""
        problem, rest = self.problem, self.fail_safe.to(like)
        return NgpcState(
            inputs=rest.expand(batch, problem.past_inputs, -1),
            outputs=like.new_zeros(batch, problem.output_lags - 1, problem.outputs),
            plan=rest.expand(batch, problem.control, -1),
            prediction=like.new_zeros(batch, problem.outputs),
            disturbance=like.new_zeros(batch, problem.outputs),
            is_started=torch.zeros(batch, dtype=torch.bool, device=like.device),
        )

    def step(self, state: NgpcState, observation: Float[Tensor, "batch n"]) -> NgpcStep:
        """Compute the input for one sample.

        A row that is not finite, or overflows, gets the fail-safe input and keeps its state.

        Args:
            state: From `start` or the last step.
            observation: Measured y, sensors, reference (one row, or N2 - N1 + 1 with preview).

        Raises:
            ShapeError: If the observation does not fit the problem.
        """
        problem = self.problem
        if observation.shape[1] != problem.observation_size:
            expected = ("batch", problem.observation_size)
            raise ShapeError("observation", expected=expected, got=tuple(observation.shape))
        is_finite = torch.isfinite(observation).all(1)
        context = self._context(state, torch.where(is_finite[:, None], observation, 0.0))
        plan = torch.cat([state.plan[:, 1:], state.plan[:, -1:]], 1)
        is_plain = torch.ones_like(is_finite)
        for _ in range(problem.iterations):
            plan, is_step_plain = _newton(problem, self.model, context, plan)
            is_plain = is_plain & is_step_plain
        is_finite = is_finite & torch.isfinite(plan).all(2).all(1)
        action = torch.where(is_finite[:, None], plan[:, 0], self.fail_safe.to(plan))
        after = self._after(context, plan, action, state, is_finite)
        low, high = _limits(problem, action)
        margin = torch.minimum(action - low, high - action).amin(1)
        status = torch.where(is_plain, Status.KEPT, Status.CORRECTED)
        status = torch.where(is_finite, status, Status.FALLBACK).to(torch.int8)
        return NgpcStep(action, margin, status, after)

    def _context(self, state: NgpcState, observation: Tensor) -> Context:
        """Take the measurement in: histories, innovation, reference."""
        problem = self.problem
        p, rows = problem.outputs, problem.reference_rows
        measured = observation[:, :p]
        sensors = observation[:, p : p + problem.sensors]
        reference = observation[:, p + problem.sensors :]
        started = state.is_started[:, None]
        innovation = torch.where(started, measured - state.prediction, 0.0)
        repeated = measured[:, None].expand(-1, problem.output_lags - 1, -1)
        past = torch.where(started[..., None], state.outputs, repeated)
        samples = problem.last - problem.first + 1
        return Context(
            inputs=state.inputs,
            outputs=torch.cat([measured[:, None], past], 1),
            sensors=sensors,
            disturbance=state.disturbance + problem.disturbance_gain * innovation,
            reference=reference.view(-1, rows, p).expand(-1, samples, -1),
        )

    def _after(
        self,
        context: Context,
        plan: Tensor,
        action: Tensor,
        before: NgpcState,
        is_finite: Tensor,
    ) -> NgpcState:
        (expected,) = predict(
            self.problem, self.model, context, plan, has_curvature=False, samples=1
        )
        past = self.problem.past_inputs
        running = NgpcState(
            inputs=torch.cat([action[:, None], context.inputs], 1)[:, :past],
            outputs=context.outputs[:, :-1],
            plan=plan,
            prediction=expected.value,
            disturbance=context.disturbance,
            is_started=torch.ones_like(is_finite),
        )
        return NgpcState(
            *(
                torch.where(is_finite.view(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(running, before, strict=True)
            )
        )


def _limits(problem: NgpcProblem, like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(problem.low).to(like), torch.as_tensor(problem.high).to(like)


def _newton(
    problem: NgpcProblem, model: ForwardModel, context: Context, plan: Tensor
) -> tuple[Tensor, Tensor]:
    """Take one step; also return where nothing was damped or limited."""
    gradient, hessian = derivatives(problem, model, context, plan)
    low, high = _limits(problem, plan)
    if problem.sharpness == 0.0:
        held = ((plan <= low).flatten(1) & (gradient > 0)) | (
            (plan >= high).flatten(1) & (gradient < 0)
        )
        gradient = torch.where(held, 0.0, gradient)
        hessian = torch.where(held[:, :, None] | held[:, None, :], 0.0, hessian)
        hessian = hessian + torch.diag_embed(held.to(hessian))
    step, is_undamped = _solve_damped(hessian, gradient)
    moved = plan + step.view_as(plan)
    limited = torch.minimum(torch.maximum(moved, low), high)
    is_plain = is_undamped & (limited == moved).all(2).all(1)
    return limited, is_plain


def _solve_damped(hessian: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Solve (H + mu I) d = -g with the least mu of `DAMPING` that works.

    NaN where none does, which takes a Hessian that is not finite: the row falls back.
    """
    size = hessian.tril().abs().sum((1, 2))
    identity = torch.eye(hessian.shape[1]).to(hessian)
    solution = torch.full_like(gradient, torch.nan)
    is_solved = torch.zeros(len(gradient), dtype=torch.bool, device=gradient.device)
    is_undamped = is_solved
    for multiple in DAMPING:
        damped = hessian + (multiple * size)[:, None, None] * identity
        factor, failed = torch.linalg.cholesky_ex(damped)
        pivots, diagonal = factor.diagonal(dim1=1, dim2=2) ** 2, damped.diagonal(dim1=1, dim2=2)
        works = (failed == 0) & (pivots > LEAST_PIVOT * diagonal).all(1)
        factor = torch.where(works[:, None, None], factor, identity)
        found = torch.cholesky_solve(-gradient[:, :, None], factor)[:, :, 0]
        solution = torch.where((works & ~is_solved)[:, None], found, solution)
        is_undamped = is_undamped | (works & (multiple == 0.0))
        is_solved = is_solved | works
    return solution, is_undamped

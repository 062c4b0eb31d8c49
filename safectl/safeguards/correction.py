"""Moving actions until a critic's costs are within their bounds: the lower layer of ACS.

    Gamma(s, a~) = argmin_a 1/2 |a - a~|^2   subject to   Q_c(s, a) <= delta(s), low <= a <= high

by a few steps from the proposal. After each step the action is clipped to its limits.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from safectl.errors import RangeError
from safectl.safeguards.cost_critic import CostCritic, Slope, is_scored, slope_function
from safectl.safeguards.evidence import Limits
from safectl.safeguards.quasi_newton import quasi_newton_step
from safectl.solve import project

SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Of a quasi-Newton step, that are compared."""

SHORT = 0.5
"""A quasi-Newton step shorter than this share of the shortest one to the bound has settled on the
penalty's minimum, which lies just outside the bound; the shortest ones are taken from then on."""

Mode = Literal["gradient", "newton", "bfgs"]

FLATTEST = 1e-8
"""Norm of a gradient below which a critic says nothing about where to go."""

BACKOFF_ULPS = 64.0
"""Corrections aim this many units of rounding (of 1 + |bound|) inside the bound, so that the cost
recomputed from the action in another batch is within it."""


@dataclass(frozen=True, slots=True)
class CorrectionOptions:
    """How an action is moved."""

    mode: Mode = "newton"
    """"newton": the shortest step to the bound of the linearised critic along the limits that are
    active; for one linear cost the nearest admissible action in at most nu steps. Several costs
    are met in one projection. "gradient": steps of fixed length against the gradient
    of the cost that exceeds its bound most. "bfgs": damped quasi-Newton steps on 1/2 |a - a~|^2 +
    penalty * sum max(excess, 0)^2, which end nearer to the proposal where the critic bends."""
    iterations: int = 20
    """K: at most so many steps."""
    step: float = 0.05
    """eta: largest change of an entry in one gradient step, in the unit of the action."""
    damping: float = 1.0
    """beta: share of a Newton step that is taken, in (0, 1]."""
    penalty: float = 100.0
    """rho of bfgs."""
    candidates: int = 0
    """Random actions that are tried where the steps fail; 0 for none. Which ones a row gets depends
    on the rows before it that need some."""
    spread: float = 0.25
    """Their standard deviation around the proposal, as a share of the width of the limits."""

    def __post_init__(self) -> None:
        if self.mode not in ("gradient", "newton", "bfgs"):
            known = "one of 'gradient', 'newton', 'bfgs'"
            raise RangeError("mode", value=self.mode, expected=known)
        if self.iterations < 1:
            raise RangeError("iterations", value=self.iterations, expected="at least 1")
        if self.candidates < 0:
            raise RangeError("candidates", value=self.candidates, expected="zero or more")
        for name in ("step", "penalty", "spread"):
            if not getattr(self, name) > 0.0:
                raise RangeError(name, value=getattr(self, name), expected="above zero")
        if not 0.0 < self.damping <= 1.0:
            raise RangeError("damping", value=self.damping, expected="a number in (0, 1]")


class Correction(NamedTuple):
    """What became of each action.

    Attributes:
        action: The first iterate within the bounds, else the best one seen, shape (batch, nu).
        cost: Recomputed at this action, shape (batch, m).
        iterations: Steps taken, shape (batch,).
        residual: Largest excess of a cost over its bound, zero if none, shape (batch,); infinity
            where it is not a number.
    """

    action: Float[Tensor, "batch nu"]
    cost: Float[Tensor, "batch m"]
    iterations: Int[Tensor, " batch"]
    residual: Float[Tensor, " batch"]


class _Problem(NamedTuple):
    """Rows outside their bound: observation, clipped proposal, largest cost, and scores.

    A row is done at or below the score `enough`; steps lead to `aim`, a little below.
    """

    observation: Tensor
    start: Tensor
    threshold: Tensor
    aim: Tensor
    enough: Tensor

    def select(self, rows: Tensor) -> "_Problem":
        return _Problem(*(part[rows] for part in self))


class _Search(NamedTuple):
    """Best actions (batch, nu), their largest excess (batch,) and the steps taken (batch,)."""

    action: Tensor
    excess: Tensor
    iterations: Tensor

    def leave(self, index: Tensor, active: "_Search") -> "_Search":
        """Write rows of the active ones to their places."""
        return _Search(
            *(whole.index_copy(0, index, part) for whole, part in zip(self, active, strict=True))
        )


def check_generator(options: CorrectionOptions, generator: torch.Generator | None) -> None:
    """Refuse candidates without a generator, before the first row that would need them.

    Raises:
        RangeError: If candidates are wanted and no generator is given.
    """
    if options.candidates > 0 and generator is None:
        raise RangeError("generator", value=None, expected="a torch.Generator, for the candidates")


@torch.no_grad()
def correct(
    critic: CostCritic,
    observation: Float[Tensor, "batch nx"],
    action: Float[Tensor, "batch nu"],
    threshold: Float[Tensor, "batch m"],
    limits: Limits,
    options: CorrectionOptions,
    *,
    generator: torch.Generator | None = None,
) -> Correction:
    """Return actions whose costs are at or below their threshold, or the best ones found.

    Never outside the limits, never worse than the clipped proposal, and bit for bit the clipped
    proposal where that is within the bounds. Rows that are done are left alone. Only the gradient
    with respect to the action is taken; the result carries none.

    Args:
        critic: Predicts the costs.
        observation: Shape (batch, nx).
        action: Proposals, shape (batch, nu).
        threshold: Largest admissible costs, shape (batch, m).
        limits: Of the action, shape (nu,) each.
        options: Mode and lengths of the steps.
        generator: Draws the candidates; needed if there are any.

    Raises:
        RangeError: If candidates are wanted and no generator is given.
    """
    check_generator(options, generator)
    start = action.clamp(*limits)
    cost = critic.cost(observation, start)
    rows = (~(cost <= threshold).all(-1)).nonzero().squeeze(-1)
    iterations = torch.zeros(len(action), dtype=torch.int64, device=action.device)
    unchanged = Correction(start, cost, iterations, _residual(cost, threshold))
    if len(rows) == 0:
        return unchanged
    if len(rows) == len(action):
        problem = _pose(critic, observation, start, threshold)
        return _improve(critic, problem, unchanged, limits, options, generator)
    problem = _pose(critic, observation[rows], start[rows], threshold[rows])
    before = Correction(*(part[rows] for part in unchanged))
    after = _improve(critic, problem, before, limits, options, generator)
    pairs = zip(unchanged, after, strict=True)
    return Correction(*(whole.index_copy(0, rows, part) for whole, part in pairs))


def _improve(
    critic: CostCritic,
    problem: _Problem,
    before: Correction,
    limits: Limits,
    options: CorrectionOptions,
    generator: torch.Generator | None,
) -> Correction:
    """Correct rows that are outside their bound; one that ends worse than before stays."""
    start = problem.start
    is_one = problem.threshold.shape == (1, 1) and options.mode != "bfgs" and start.is_cpu
    search = _search_one if is_one else _search
    found = search(critic, problem, limits, options)
    if options.candidates > 0:
        found = _try_candidates(critic, problem, found, limits, options, generator)
    cost = critic.cost(problem.observation, found.action)
    residual = _residual(cost, problem.threshold)
    better = residual <= before.residual
    if bool(better.all()):
        return Correction(found.action, cost, found.iterations, residual)
    return Correction(
        torch.where(better.unsqueeze(-1), found.action, before.action),
        torch.where(better.unsqueeze(-1), cost, before.cost),
        found.iterations,
        torch.where(better, residual, before.residual),
    )


def _residual(cost: Tensor, threshold: Tensor) -> Tensor:
    excess = (cost - threshold).amax(-1).clamp(min=0.0)
    return excess.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _pose(critic: CostCritic, observation: Tensor, start: Tensor, threshold: Tensor) -> _Problem:
    backoff = BACKOFF_ULPS * torch.finfo(start.dtype).eps * (1.0 + threshold.abs())
    aim, enough = threshold - 2.0 * backoff, threshold - backoff
    if is_scored(critic):
        aim, enough = critic.scale(aim), critic.scale(enough)
    return _Problem(observation, start, threshold, aim, enough)


def _search(
    critic: CostCritic, problem: _Problem, limits: Limits, options: CorrectionOptions
) -> _Search:
    """Step until every row is within its bound or stuck; work only on the rows that are not."""
    point, index = problem.start, torch.arange(len(problem.start), device=problem.start.device)
    best = _Search(point, torch.full_like(point[:, 0], torch.inf), torch.zeros_like(index))
    found, slope_at = best, slope_function(critic, problem.observation)
    settled, curvature = torch.zeros_like(index, dtype=torch.bool), None
    moves = torch.ones_like(settled)
    for iteration in range(options.iterations + 1):
        slope = slope_at(point)
        worst = (slope.score - problem.enough).amax(-1)
        better = worst < best.excess
        action = torch.where(better.unsqueeze(-1), point, best.action)
        best = best._replace(action=action, excess=torch.where(better, worst, best.excess))
        excess = slope.score - problem.aim
        gradient = _inward(_worst_gradient(slope, excess), point, limits)
        square = (gradient * gradient).sum(-1)
        going = moves & (worst > 0.0) & (square > FLATTEST**2) & (square < torch.inf)
        count = int(going.sum())
        if iteration == options.iterations or count == 0:
            break
        if count < len(index):
            found = found.leave(index, best)
            index, point, excess, gradient = (v[going] for v in (index, point, excess, gradient))
            problem, slope = problem.select(going), Slope(*(part[going] for part in slope))
            slope_at = slope_function(critic, problem.observation)
            best, square = _Search(*(part[going] for part in best)), square[going]
            settled, curvature = settled[going], curvature and curvature.select(going)
        best = best._replace(iterations=best.iterations + 1)
        if options.mode == "gradient":
            moved = point - options.step * gradient / gradient.abs().amax(-1, keepdim=True)
        else:
            root = point - (excess.amax(-1) / square).unsqueeze(-1) * gradient
            if excess.shape[1] > 1:
                root = _joint_root(point, slope, excess, root, limits)
            if options.mode == "newton":
                moved = point + options.damping * (root - point)
            else:
                move, curvature = quasi_newton_step(
                    curvature, problem.start, point, excess, slope.gradient, options.penalty
                )
                settled = settled | ~(move.norm(dim=-1) >= SHORT * (root - point).norm(dim=-1))
                damped = _damp(critic, problem, point, move, limits, options.penalty)
                settled = settled | (damped == point).all(-1)
                moved = torch.where(settled.unsqueeze(-1), root, damped)
        moved = moved.clamp(*limits)
        moves, point = (moved != point).any(-1), moved
    return found.leave(index, best)


def _search_one(
    critic: CostCritic, problem: _Problem, limits: Limits, options: CorrectionOptions
) -> _Search:
    """Search as `_search` does, for one row with one cost, in NumPy; a third of the time."""
    low, high = limits.low.numpy(), limits.high.numpy()
    point = best = problem.start.numpy()
    aim, enough = problem.aim.item(), problem.enough.item()
    least, taken, slope_at = torch.inf, 0, slope_function(critic, problem.observation)
    while True:
        slope = slope_at(torch.from_numpy(point))
        value, gradient = slope.score.item(), slope.gradient.numpy()[:, 0]
        gradient = np.where(np.where(gradient > 0.0, point > low, point < high), gradient, 0.0)
        if value - enough < least:
            best, least = point, value - enough
        if not value > enough or taken == options.iterations:
            break
        square = float(np.vdot(gradient, gradient))
        if not FLATTEST**2 < square < torch.inf:
            break
        if options.mode == "newton":
            length = options.damping * (value - aim) / square
        else:
            length = options.step / float(np.abs(gradient).max())
        moved = np.clip(point - length * gradient, low, high).astype(point.dtype)
        taken += 1
        if (moved == point).all():
            break
        point = moved
    excess, steps = problem.aim.new_tensor([least]), torch.tensor([taken])
    return _Search(torch.from_numpy(best), excess, steps)


def _worst_gradient(slope: Slope, excess: Tensor) -> Tensor:
    """Return the gradient of the cost that exceeds its bound most, shape (batch, nu)."""
    if slope.score.shape[1] == 1:
        return slope.gradient.squeeze(1)
    index = excess.argmax(-1).reshape(-1, 1, 1).expand(-1, 1, slope.gradient.shape[2])
    return slope.gradient.gather(1, index).squeeze(1)


def _inward(gradient: Tensor, point: Tensor, limits: Limits) -> Tensor:
    """Zero the entries along which a descent would leave the limits."""
    return gradient.where(torch.where(gradient > 0.0, point > limits.low, point < limits.high), 0.0)


def _joint_root(
    point: Tensor, slope: Slope, excess: Tensor, otherwise: Tensor, limits: Limits
) -> Tensor:
    """Return the nearest point within the limits at which no linearised cost exceeds its aim."""
    along = (slope.gradient @ point.unsqueeze(-1)).squeeze(-1)
    joint = project(point, -slope.gradient, excess - along, *limits)
    return torch.where(joint.feasible.unsqueeze(-1), joint.point, otherwise)


def _damp(
    critic: CostCritic,
    problem: _Problem,
    point: Tensor,
    move: Tensor,
    limits: Limits,
    penalty: float,
) -> Tensor:
    """Return the point along a move, among `SHARES`, at which the penalised objective is least."""
    shares = point.new_tensor(SHARES).reshape(1, -1, 1)
    tried = (point.unsqueeze(1) + shares * move.unsqueeze(1)).clamp(*limits)
    repeated = problem.observation.repeat_interleave(len(SHARES), 0)
    score = critic.cost(repeated, tried.flatten(0, 1))
    if is_scored(critic):
        score = critic.scale(score)
    excess = score.reshape(*tried.shape[:2], -1) - problem.aim.unsqueeze(1)
    distance = (tried - problem.start.unsqueeze(1)).square().sum(-1)
    objective = 0.5 * distance + penalty * excess.clamp(min=0.0).square().sum(-1)
    chosen = objective.nan_to_num(nan=torch.inf).argmin(-1)
    return tried[torch.arange(len(point), device=point.device), chosen]


def _try_candidates(
    critic: CostCritic,
    problem: _Problem,
    found: _Search,
    limits: Limits,
    options: CorrectionOptions,
    generator: torch.Generator | None,
) -> _Search:
    """Replace what exceeds its bound by the best of random actions, where that is better."""
    rows = (found.excess > 0.0).nonzero().squeeze(-1)
    if len(rows) == 0:
        return found
    problem, count = problem.select(rows), options.candidates
    start, kind, device = problem.start, problem.start.dtype, problem.start.device
    shape = (len(rows), count, start.shape[1])
    draws = torch.randn(shape, generator=generator, dtype=kind, device=device)
    tried = start.unsqueeze(1) + options.spread * (limits.high - limits.low) * draws
    tried = torch.cat([found.action[rows].unsqueeze(1), tried.clamp(*limits)], 1)
    repeated = problem.observation.repeat_interleave(count + 1, 0)
    cost = critic.cost(repeated, tried.flatten(0, 1)).reshape(len(rows), count + 1, -1)
    excess = (cost - problem.threshold.unsqueeze(1)).amax(-1)
    best = torch.where(excess.isnan(), torch.inf, excess).argmin(-1)
    chosen = tried[torch.arange(len(rows), device=device), best]
    return found._replace(action=found.action.index_copy(0, rows, chosen))

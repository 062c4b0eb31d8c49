"""The sampling loop of a diffusion planner: denoise, correct, impose, repeat.

Plans have shape (batch, H, D); a transition holds the action first, then the observation. Nothing
in the loop waits for the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from safectl.planners.invariance import Invariance, RobustSafe
from safectl.planners.invariance_qp import nearest_displacement
from safectl.planners.schedule import FINISHED, Step
from safectl.planners.specification import Linear, Specification


@runtime_checkable
class Denoiser(Protocol):
    """Predicts the clean plan."""

    def __call__(
        self, plan: Float[Tensor, "batch H D"], step: Int[Tensor, " batch"], /
    ) -> Float[Tensor, "batch H D"]:
        """Return the prediction for plans at a diffusion index."""
        ...


@runtime_checkable
class ValueFunction(Protocol):
    """Predicts the return of noisy plans."""

    def __call__(
        self, plan: Float[Tensor, "batch H D"], step: Int[Tensor, " batch"], /
    ) -> Float[Tensor, " batch"]:
        """Return the values."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Imposed:
    """Entries of a plan that are known: the start and, in a maze, the goal.

    Attributes:
        values: Normalised, shape (batch, H, D).
        known: Which entries, shape (H, D).
    """

    values: Float[Tensor, "batch H D"]
    known: Bool[Tensor, "H D"]

    def on(self, plan: Float[Tensor, "batch H D"]) -> Float[Tensor, "batch H D"]:
        """Return the plan with the known entries overwritten."""
        return torch.where(self.known, self.values, plan)


REFINEMENTS = 4
TENSION = 0.25
"""Share of the second difference in one tightening; stable below one half."""


@dataclass(frozen=True, slots=True, eq=False)
class PlanFilter:
    """Moves the constrained coordinates of a proposal by the program of an invariance.

    Attributes:
        invariance: The variant.
        specification: What to meet.
        nu: Number of actions, which stand before the observation.
        period: Time between two states of a plan [s].
        active_below: Diffusion index below which the filter acts.
        tightenings: How often a finished plan is smoothed and corrected again.
        begins_s: Time of the first state of every plan [s], for barriers that move.
        is_physical: Whether the nearest proposal is that in physical units, where the entries have
            equal ones; else in normalised ones, as released.
    """

    invariance: Invariance
    specification: Specification
    nu: int
    period: float
    active_below: int = 1_000_000
    tightenings: int = 0
    begins_s: float = 0.0
    is_physical: bool = False

    def depth(self, first: Float[Tensor, "batch H D"]) -> Float[Tensor, "m batch"]:
        """Return how far below zero each barrier is in each plan of pure noise, at least 1."""
        batch, horizon, _ = first.shape
        value = self._linearise(first).value
        return (-value.reshape(len(value), batch, horizon).amin(-1)).clamp(min=1.0)

    def correct(
        self,
        before: Float[Tensor, "batch H D"],
        proposal: Float[Tensor, "batch H D"],
        step: Step,
        depth: Float[Tensor, "m batch"],
    ) -> Float[Tensor, "batch H D"]:
        """Return the nearest proposal that meets the constraint linearised at `before`.

        `depth` is that of the plans the denoising began with.
        """
        batch, horizon, _ = before.shape
        linear = self._linearise(before)
        deep = depth.repeat_interleave(horizon, dim=1)
        offset, weight = self.invariance.condition(linear.value, deep, step)
        columns = [self.nu + index for index in self.specification.coordinates]
        here = before[..., columns].reshape(-1, len(columns))
        # With v = x + u the program asks for the v nearest to the proposal, which it then keeps
        # bit for bit where nothing binds.
        offset = offset - (linear.gradient * here).sum(-1)
        wanted = proposal[..., columns].reshape(-1, len(columns))
        if self.is_physical:  # in y = scale v the program is the same one, with its own slopes
            scale = self.specification.scale.to(wanted)
            slope = linear.gradient / scale
            moved = nearest_displacement(scale * wanted, slope, offset, weight) / scale
        else:
            moved = nearest_displacement(wanted, linear.gradient, offset, weight)
        corrected = proposal.clone()
        corrected[..., columns] = moved.reshape(batch, horizon, -1)
        return corrected

    def _linearise(self, plan: Tensor) -> Linear:
        """Evaluate all barriers at all states, plan by plan, each at its time in the plan."""
        batch, horizon, width = plan.shape
        time = self.begins_s + torch.arange(horizon, device=plan.device).to(plan) * self.period
        state = plan.reshape(-1, width)[:, self.nu :]
        return self.specification.linearise(state, time.repeat(batch))

    def tighten(
        self, plan: Float[Tensor, "batch H D"], imposed: Imposed
    ) -> Float[Tensor, "batch H D"]:
        """Pull finished plans taut around the obstacles, as an elastic band.

        Each state moves a quarter of the second difference of its neighbours and is corrected by
        the hard constraint, so that the gaps of a trapped plan spread over many states (S. Quinlan,
        O. Khatib, "Elastic bands", ICRA 1993, with a fixed number of iterations).
        """
        hard = replace(self, invariance=RobustSafe(margin=self.invariance.margin))
        columns = [self.nu + index for index in self.specification.coordinates]
        depth = self.depth(plan)
        for _ in range(self.tightenings):
            place = plan[..., columns]
            moved = plan.clone()
            moved[:, 1:-1, columns] = place[:, 1:-1] + TENSION * place.diff(n=2, dim=1)
            plan = imposed.on(hard.correct(plan, moved, FINISHED, depth))
        return plan

    def refine(
        self, plan: Float[Tensor, "batch H D"], imposed: Imposed
    ) -> Float[Tensor, "batch H D"]:
        """Repeat the hard correction of finished plans; changes nothing where they are safe.

        For barriers that are not convex, where one step need not suffice: from a state outside
        of a smooth set each repetition squares the error. Still no promise.
        """
        hard = replace(self, invariance=RobustSafe(margin=self.invariance.margin))
        depth = self.depth(plan)
        for _ in range(REFINEMENTS):
            plan = imposed.on(hard.correct(plan, plan, FINISHED, depth))
        return plan


@dataclass(frozen=True, slots=True, eq=False)
class Guidance:
    """Ascends a value function before each step (Janner et al., "Diffuser", ICML 2022).

    Attributes:
        value: What to ascend.
        scale: Step size in units of the posterior variance of the step, >= 0; the noise that the
            sampler adds does not count, so that DDIM is guided as DDPM is.
        ascents: Gradient steps per denoising step.
        stop_below: Diffusion index below which nothing is done.
    """

    value: ValueFunction
    scale: float = 0.1
    ascents: int = 2
    stop_below: int = 2

    def on(
        self, plan: Float[Tensor, "batch H D"], step: Step, imposed: Imposed
    ) -> Float[Tensor, "batch H D"]:
        """Return the plan moved along the gradient of its value."""
        if step.at < self.stop_below:
            return plan
        index = torch.full((len(plan),), step.at, device=plan.device)
        for _ in range(self.ascents):
            with torch.enable_grad():
                point = plan.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad(self.value(point, index).sum(), point)
            plan = imposed.on(plan + self.scale * step.variance * slope)
        return plan


class Sample(NamedTuple):
    """Finished plans (batch, H, D), and the states that the last step corrected (batch, H)."""

    plan: Float[Tensor, "batch H D"]
    corrected: Bool[Tensor, "batch H"]


def sample(
    denoiser: Denoiser,
    steps: Sequence[Step],
    imposed: Imposed,
    noise: Callable[[], Float[Tensor, "batch H D"]],
    *,
    plan_filter: PlanFilter | None = None,
    guidance: Guidance | None = None,
    clips: bool = True,
    watch: Callable[[Step, Float[Tensor, "batch H D"]], None] | None = None,
) -> Sample:
    """Draw plans.

    Args:
        denoiser: Predicts the clean plan; its weights are the averaged ones.
        steps: From `sampling_steps`.
        imposed: What is known of the plans.
        noise: Draws standard normal numbers for all plans.
        plan_filter: Corrects every proposal; none for plain Diffuser.
        guidance: Moves plans along a value function.
        clips: Limit predictions to [-1, 1], for data normalised by their limits.
        watch: Called with the plans after each step.
    """
    plan = imposed.on(noise())
    proposal = plan
    depth = None if plan_filter is None else plan_filter.depth(plan)
    with torch.no_grad():
        for step in steps:
            if guidance is not None:
                plan = guidance.on(plan, step, imposed)
            index = torch.full((len(plan),), max(step.at, 0), device=plan.device)
            clean = denoiser(plan, index)
            clean = clean.clamp(-1.0, 1.0) if clips else clean
            proposal = step.from_clean * clean + step.from_noisy * plan
            if step.noise > 0.0:
                proposal = proposal + step.noise * noise()
            filtered = proposal
            if plan_filter is not None and depth is not None and step.at < plan_filter.active_below:
                filtered = plan_filter.correct(plan, proposal, step, depth)
            plan = imposed.on(filtered)
            if watch is not None:
                watch(step, plan)
        if plan_filter is not None:
            plan = plan_filter.tighten(plan, imposed)
            if not plan_filter.specification.is_convex:
                plan = plan_filter.refine(plan, imposed)
        corrected = (plan != imposed.on(proposal)).any(-1)
    return Sample(plan, corrected)

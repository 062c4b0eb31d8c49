"""A diffusion model as a planner: plans with a certificate each."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.planners.diffusion import Guidance, Imposed, PlanFilter, sample
from safectl.planners.plan_model import PlanModel
from safectl.planners.schedule import Step
from safectl.planners.specification import Specification
from safectl.safeguards.evidence import smallest
from safectl.types import Certificate, Plan, Status

JUMP = 0.2
"""Normalised distance of two consecutive states from which a plan counts as trapped.

About seven times the largest step in the data of the large maze (SafeFlowMatcher, ICLR 2026).
"""


class Evidence(NamedTuple):
    """What was measured on finished plans, before any clip; shape (batch,) each.

    Attributes:
        margins: Smallest value of each barrier at the states, (batch, m), unit of the barrier.
        segment_margin: Bound of every barrier between and at the states.
        corrected: Share of states that the last step corrected.
        clipped: Share of states outside of the data, which a clip would have moved.
        jumps: Steps longer than `JUMP`.
        longest: Longest step, in normalised units.
    """

    margins: Float[Tensor, "batch m"]
    segment_margin: Float[Tensor, " batch"]
    corrected: Float[Tensor, " batch"]
    clipped: Float[Tensor, " batch"]
    jumps: Int[Tensor, " batch"]
    longest: Float[Tensor, " batch"]

    @property
    def is_safe(self) -> Bool[Tensor, " batch"]:
        """Whether no barrier is below zero on the whole way, NaN counting as unsafe."""
        return self.segment_margin >= 0.0


class Proposal(NamedTuple):
    """Plans in physical units with their evidence."""

    states: Float[Tensor, "batch H nx"]
    actions: Float[Tensor, "batch H nu"]
    evidence: Evidence


@dataclass(frozen=True, slots=True, eq=False)
class DiffusionPlanner:
    """Draws plans from a model, keeps the best by its evidence and certifies it.

    The certificate is about the plan: its margin is the smallest barrier value on the straight
    ways between its states, and risk 0 says that this was proven. Risk is 1 where it was not: below
    zero, in a fallback, and with barriers that are only sampled (`Specification.is_proven`), such
    as `Moving`. Not promised: that a robot which follows the plan is safe; that needs a safeguard
    on the action. The fallback is the plan that stays at the start: `velocities` are zero from its
    second state on, and its margin is that of its whole way and time.

    Attributes:
        model: What was trained.
        steps: From `sampling_steps`.
        specification: What plans are certified for.
        plan_filter: Corrects plans while they are denoised; None for plain Diffuser.
        goal: Observation at the end of every plan, shape (nx,); None for none.
        guidance: Moves plans along a value function.
        candidates: Plans drawn per row, of which the best is kept: a safe one before an unsafe
            one, then the one of the largest value, or without guidance the one with the shortest
            longest step.
        velocities: Entries of the observation that are the rates of the specification's
            coordinates; empty where there are none.
        derives: Whether the velocities of a plan are set to the rates of its positions, since a
            correction moves positions only; else they are as drawn.
        generator: Source of the noise.

    Raises:
        ShapeError: If the goal is no observation.
        RangeError: If the goal violates the specification, or a number is out of range.
    """

    model: PlanModel
    steps: tuple[Step, ...]
    specification: Specification
    plan_filter: PlanFilter | None = None
    goal: Float[Tensor, " nx"] | None = None
    guidance: Guidance | None = None
    candidates: int = 1
    velocities: tuple[int, ...] = ()
    derives: bool = True
    generator: torch.Generator = field(default_factory=torch.Generator)

    def __post_init__(self) -> None:
        nx = self.model.nx
        if self.candidates < 1:
            raise RangeError("candidates", value=self.candidates, expected="at least 1")
        if self.velocities and len(self.velocities) != len(self.specification.coordinates):
            expected = (len(self.specification.coordinates),)
            raise ShapeError("velocities", expected=expected, got=(len(self.velocities),))
        if self.goal is not None:
            if self.goal.shape != (nx,):
                raise ShapeError("goal", expected=(nx,), got=tuple(self.goal.shape))
            end_s = (self.model.horizon - 1) * self.model.period
            self._require_inside("goal", self.goal.unsqueeze(0), end_s)

    def require_start(self, observation: Float[Tensor, "batch nx"]) -> None:
        """Refuse starts from which no plan can be safe.

        Raises:
            RangeError: If one is not finite or violates the specification.
        """
        self._require_inside("start", observation, 0.0)

    def plan(self, observation: Float[Tensor, "batch nx"], /) -> Plan:
        """Plan from every row at time zero of the barriers that move, as `plan_at`.

        Raises:
            ShapeError, RangeError: As `plan_at`.
        """
        return self.plan_at(observation, 0.0)

    def plan_at(self, observation: Float[Tensor, "batch nx"], begins_s: float, /) -> Plan:
        """Plan from every row; what cannot be certified is the fallback.

        A start that is not finite has the fallback with margin -infinity, and stays as it is.
        Without a filter nothing is claimed: unsafe plans come back with their negative margin and
        status `KEPT`.

        Args:
            observation: Starts.
            begins_s: Time of the start [s], for barriers that move.

        Raises:
            ShapeError: If a row is no observation.
            RangeError: If the rows are no floating-point numbers.
        """
        self.model.require_observations(observation)
        usable = observation.isfinite().all(-1)
        starts = torch.where(usable.unsqueeze(-1), observation, 0.0)
        proposal = self.propose(starts, begins_s=begins_s)
        evidence = proposal.evidence
        good = usable & _is_finite(proposal.states) & _is_finite(proposal.actions)
        if self.plan_filter is not None:
            good = good & evidence.is_safe
        row = good.reshape(-1, 1, 1)
        stay = observation.unsqueeze(1).repeat(1, self.model.horizon, 1)
        stay[:, 1:, list(self.velocities)] = 0.0
        stay_margin = self._segment_margin(self._with_time(stay.double(), begins_s))
        margin = torch.where(good, evidence.segment_margin, stay_margin)
        margin = torch.where(usable, margin, -torch.inf).to(observation)
        status = torch.where(evidence.corrected > 0.0, Status.CORRECTED.value, Status.KEPT.value)
        status = torch.where(good, status, Status.FALLBACK.value)
        proven = good & evidence.is_safe & self.specification.is_proven
        certificate = Certificate(
            status.to(torch.int8), margin, (~proven).to(margin), (-margin).clamp(min=0.0)
        )
        return Plan(
            torch.where(row, proposal.states, stay),
            torch.where(row, proposal.actions, 0.0),
            certificate,
        )

    def propose(
        self,
        observation: Float[Tensor, "batch nx"],
        *,
        begins_s: float = 0.0,
        watch: Callable[[Step, Float[Tensor, "rows H D"]], None] | None = None,
    ) -> Proposal:
        """Draw plans and measure them, safe or not.

        Args:
            observation: Starts.
            begins_s: Time of the start [s], for barriers that move.
            watch: Called after each denoising step with all candidates, normalised.

        Raises:
            ShapeError, RangeError: As `plan`.
        """
        self.model.require_observations(observation)
        imposed = self.impose(observation.repeat_interleave(self.candidates, 0))
        plan_filter = self.plan_filter
        if plan_filter is not None:
            plan_filter = replace(plan_filter, begins_s=begins_s)
        drawn = sample(
            self.model.denoiser,
            self.steps,
            imposed,
            lambda: self._noise(imposed.values),
            plan_filter=plan_filter,
            guidance=self.guidance,
            clips=self.model.clips,
            watch=watch,
        )
        physical = self.model.normaliser.unnormalise(drawn.plan)
        actions, states = physical[..., : self.model.nu], physical[..., self.model.nu :]
        states = self._with_velocities(states)
        evidence = self.measure(states, drawn.corrected, begins_s=begins_s)
        usable = evidence.is_safe & _is_finite(physical)
        best = _best(self._cost(drawn.plan, evidence), usable, self.candidates)
        return Proposal(states[best], actions[best], Evidence(*(part[best] for part in evidence)))

    def _cost(self, plan: Tensor, evidence: Evidence) -> Float[Tensor, " rows"]:
        """Return by what candidates are ranked, the smaller the better."""
        if self.guidance is None:
            return evidence.longest
        with torch.no_grad():
            index = torch.zeros(len(plan), dtype=torch.long, device=plan.device)
            return -self.guidance.value(plan, index)

    def impose(self, observation: Float[Tensor, "batch nx"]) -> Imposed:
        """Return the known entries of plans from these starts, normalised."""
        model, normaliser = self.model, self.model.observation_normaliser
        width = len(model.normaliser.centre)
        values = observation.new_zeros(len(observation), model.horizon, width)
        known = torch.zeros(values.shape[1:], dtype=torch.bool, device=values.device)
        values[:, 0, model.nu :] = normaliser.normalise(observation)
        known[0, model.nu :] = True
        if self.goal is not None:
            values[:, -1, model.nu :] = normaliser.normalise(self.goal.to(observation))
            known[-1, model.nu :] = True
        return Imposed(values, known)

    def measure(
        self,
        states: Float[Tensor, "batch H nx"],
        corrected: Bool[Tensor, "batch H"],
        *,
        begins_s: float = 0.0,
    ) -> Evidence:
        """Measure finished plans as they are returned, in physical units; barriers in float64."""
        normaliser = self.model.observation_normaliser
        observation = normaliser.normalise(states)
        states = self._with_time(states.double(), begins_s)
        margins = self.specification.values(states.flatten(0, 1)).reshape(*states.shape[:2], -1)
        place = observation[..., list(self.specification.coordinates)]
        length = torch.linalg.vector_norm(place.diff(dim=1), dim=-1)
        return Evidence(
            margins.amin(1),
            self._segment_margin(states),
            corrected.to(length).mean(-1),
            normaliser.would_clip(observation).any(-1).to(length).mean(-1),
            (length > JUMP).sum(-1),
            length.amax(-1),
        )

    def _segment_margin(self, states: Tensor) -> Tensor:
        """Return the smallest bound of all barriers on the whole way."""
        return smallest(self.specification.segment_values(states))

    def _with_time(self, states: Tensor, begins_s: float) -> Tensor:
        """Append the time of each state as the last entry."""
        count = torch.arange(states.shape[1], device=states.device).to(states)
        time = (begins_s + count * self.model.period).reshape(1, -1, 1)
        return torch.cat([states, time.expand(len(states), -1, 1)], dim=-1)

    def _with_velocities(self, states: Tensor) -> Tensor:
        """Set inner velocities to central differences of the positions."""
        if not (self.velocities and self.derives):
            return states
        place = states[..., list(self.specification.coordinates)]
        states = states.clone()
        rate = (place[:, 2:] - place[:, :-2]) / (2.0 * self.model.period)
        states[:, 1:-1, list(self.velocities)] = rate
        return states

    def _noise(self, like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=self.generator, device=self.generator.device)
        return drawn.to(like)

    def _require_inside(self, name: str, observation: Tensor, time_s: float) -> None:
        state = torch.cat([observation, torch.full_like(observation[:, :1], time_s)], dim=1)
        values = self.specification.values(state)
        for row, entries in enumerate(values):
            bad = ~(entries >= 0.0)
            if bool(bad.any()) or not bool(observation[row].isfinite().all()):
                margin = float(entries.min()) if len(entries) else 0.0
                raise RangeError(
                    f"{name} {row}",
                    value=tuple(round(x, 4) for x in observation[row].tolist()),
                    expected=f"a finite observation that meets {list(self.specification.barriers)};"
                    f" its margin is {margin:.3g}, so no plan from or to it can be safe: move it",
                )


def _best(
    cost: Float[Tensor, " rows"], usable: Bool[Tensor, " rows"], candidates: int
) -> Int[Tensor, " batch"]:
    """Return the row of the cheapest usable candidate of each start, or of the cheapest at all."""
    cost = cost.nan_to_num(nan=torch.inf).reshape(-1, candidates)
    usable = usable.reshape(-1, candidates)
    chosen = torch.where(usable, cost, torch.inf).argmin(1)
    chosen = torch.where(usable.any(1), chosen, cost.argmin(1))
    return chosen + torch.arange(len(cost), device=cost.device) * candidates


def _is_finite(plans: Float[Tensor, "batch H k"]) -> Bool[Tensor, " batch"]:
    return plans.isfinite().flatten(1).all(-1)

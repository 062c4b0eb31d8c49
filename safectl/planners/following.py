"""A planner as a policy: plan, follow the plan with feedback, plan again."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards.evidence import action_limits
from safectl.spec import Spec
from safectl.types import Certificate, Plan, Planner, Status


@runtime_checkable
class TimedPlanner(Protocol):
    """A planner that knows what moves: it is told at what time the plan begins."""

    def plan_at(self, observation: Float[Tensor, "batch nx"], begins_s: float, /) -> Plan:
        """Plan from every row at a time [s]."""
        ...


class PlanFollower:
    """Follows the states of a plan with a = p (w_position - position) + v (w_velocity - velocity).

    At step t of a plan w is its state t + 1; after the last one it is the last position at rest
    (Janner et al., "Planning with diffusion for flexible behavior synthesis", 2022, with gains of
    one). With `reach` the plan waits: while a row is farther than that from its waypoint, the
    waypoint stands still, at rest. Without, a row that a safeguard slowed down heads for where it
    should be by now, straight through what the plan leads around, and does not arrive.

    A new plan that is a fallback is not taken by a row that still has a plan. The action is cut at
    the limits. Nothing is promised about it: give it to a safeguard.

    A `TimedPlanner` is told the time since the reset. A plan that waits is late: among obstacles
    that move, plan again instead (`every` without `reach`).

    It remembers the plans; call `reset` before another episode.

    Args:
        planner: Makes plans whose states are observations, the first one that of the start.
        spec: Signals of the robot; the actions push along the positions.
        every: Steps between plans, of all rows at once; with `reach`, the steps that a row has to
            wait, or to follow a fallback, before it plans again. Without, there is one plan per
            episode, and a row whose plan is a fallback stays.
        reach: Distance to the waypoint from which the plan waits [m]; without, it never does.
        positions: Indices of the positions in the observation, one per action.
        velocities: Indices of the velocities.
        gains: p [unit of action / m] and v [unit of action s / m].

    Raises:
        ShapeError: If there is not one position and velocity per action.
        RangeError: If `every`, `reach` or a gain is not positive.
    """

    def __init__(
        self,
        planner: Planner,
        spec: Spec,
        *,
        every: int | None = None,
        reach: float | None = None,
        positions: Sequence[int] = (0, 1),
        velocities: Sequence[int] = (2, 3),
        gains: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        for name, entries in (("positions", positions), ("velocities", velocities)):
            if len(entries) != spec.nu:
                raise ShapeError(name, expected=(spec.nu,), got=(len(entries),))
        if every is not None and every < 1:
            raise RangeError("every", value=every, expected="at least 1 step, or None")
        if not min(gains) > 0.0:
            raise RangeError("gains", value=gains, expected="positive numbers")
        if reach is not None and not reach > 0.0:
            raise RangeError("reach", value=reach, expected="a positive distance, or None")
        self.planner, self.spec, self.every, self.gains = planner, spec, every, gains
        self.reach = reach
        self.positions, self.velocities = list(positions), list(velocities)
        self._plan: Plan | None = None
        self._age = self._waited = torch.zeros(0, dtype=torch.long)
        self._step = 0

    @property
    def plan(self) -> Plan | None:
        """The plans that are followed now, None before the first step."""
        return self._plan

    def reset(self) -> None:
        """Forget the plans."""
        self._plan, self._step = None, 0

    def act(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        """Plan where it is time to, and return the next action of every row.

        Raises:
            ShapeError: If the number of rows differs from that of the plans.
        """
        if self._plan is not None and len(self._plan.states) != len(observation):
            expected = (len(self._plan.states), "nx")
            raise ShapeError("batch", expected=expected, got=tuple(observation.shape))
        due = self._due(observation)
        if bool(due.any()):
            self._renew(observation, due)
        assert self._plan is not None, "the first plans are due"
        states = self._plan.states
        waypoint = self._waypoint(states)
        waits = torch.zeros_like(due)
        if self.reach is not None:
            distance = (waypoint - observation)[:, self.positions].norm(dim=1)
            waits = ~(distance <= self.reach)
            rest = torch.where(waits.unsqueeze(1), 0.0, waypoint[:, self.velocities])
            waypoint[:, self.velocities] = rest
        self._age, self._step = self._age + (~waits).long(), self._step + 1
        stays = self._plan.certificate.status == Status.FALLBACK.value
        self._waited = torch.where(waits | stays, self._waited + 1, 0)
        position, velocity = self.gains
        way = (waypoint - observation)[:, self.positions]
        faster = (waypoint - observation)[:, self.velocities]
        return (position * way + velocity * faster).clamp(*action_limits(self.spec, observation))

    def _due(self, observation: Tensor) -> Bool[Tensor, " batch"]:
        """Return the rows that plan in this step."""
        if self._plan is not None and self.every is not None and self.reach is not None:
            return self._waited >= self.every
        is_time = self.every is not None and self._step % self.every == 0
        is_due = self._plan is None or is_time
        return torch.full((len(observation),), is_due, device=observation.device)

    def _renew(self, observation: Tensor, due: Bool[Tensor, " batch"]) -> None:
        """Plan for the rows that are due; the others keep their plans."""
        new, old = self._new(observation[due]), self._plan
        if old is None:
            self._plan = new
            self._age = torch.zeros(len(observation), dtype=torch.long, device=observation.device)
            self._waited = self._age
            return
        is_usable = new.certificate.status != Status.FALLBACK.value
        taken = is_usable | (old.certificate.status[due] == Status.FALLBACK.value)
        rows = due.nonzero()[:, 0][taken]
        self._plan = _with_rows(old, rows, new, taken)
        self._age = self._age.index_fill(0, rows, 0)
        self._waited = torch.where(due, 0, self._waited)

    def _new(self, observation: Tensor) -> Plan:
        if isinstance(self.planner, TimedPlanner):
            return self.planner.plan_at(observation, self._step * self.spec.period)
        return self.planner.plan(observation)

    def _waypoint(self, states: Tensor) -> Tensor:
        """Return plan state t + 1, and past the end the last one at rest, shape (batch, nx)."""
        last = states.shape[1] - 1
        row = torch.arange(len(states), device=states.device)
        waypoint = states[row, (self._age + 1).clamp(max=last)].clone()
        over = (self._age + 1 > last).unsqueeze(1)
        still = torch.where(over, 0.0, waypoint[:, self.velocities])
        waypoint[:, self.velocities] = still
        return waypoint


def _with_rows(old: Plan, rows: Tensor, new: Plan, taken: Bool[Tensor, " new"]) -> Plan:
    """Return the old plans with the taken new ones in some rows."""
    certificate = Certificate(
        *(
            getattr(old.certificate, name).index_copy(
                0, rows, getattr(new.certificate, name)[taken]
            )
            for name in ("status", "margin", "risk", "residual")
        )
    )
    return Plan(
        old.states.index_copy(0, rows, new.states[taken]),
        old.actions.index_copy(0, rows, new.actions[taken]),
        certificate,
    )

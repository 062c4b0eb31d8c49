"""A planner as a policy: plan, follow the plan with feedback, plan again."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards.evidence import action_limits
from safectl.spec import Spec
from safectl.types import Plan, Planner, Status


class PlanFollower:
    """Follows the states of a plan with a = p (w_position - position) + v (w_velocity - velocity).

    At step t of a plan w is its state t + 1; after the last one it is the last position at rest
    (Janner et al., "Planning with diffusion for flexible behavior synthesis", 2022, with gains of
    one). A new plan that is a fallback is not taken by a row that still has a plan. The action is
    cut at the limits. Nothing is promised about it: give it to a safeguard.

    It remembers the plans; call `reset` before another episode. All rows plan in the same steps.

    Args:
        planner: Makes plans whose states are observations, the first one that of the start.
        spec: Signals of the robot; the actions push along the positions.
        every: Steps between plans; without, there is one plan per episode.
        positions: Indices of the positions in the observation, one per action.
        velocities: Indices of the velocities.
        gains: p [unit of action / m] and v [unit of action s / m].

    Raises:
        ShapeError: If there is not one position and velocity per action.
        RangeError: If `every` or a gain is not positive.
    """

    def __init__(
        self,
        planner: Planner,
        spec: Spec,
        *,
        every: int | None = None,
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
        self.planner, self.spec, self.every, self.gains = planner, spec, every, gains
        self.positions, self.velocities = list(positions), list(velocities)
        self._plan: Plan | None = None
        self._age = torch.zeros(0, dtype=torch.long)
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
        if self._plan is None or (self.every is not None and self._step % self.every == 0):
            self._renew(observation)
        assert self._plan is not None, "it was made above"
        states = self._plan.states
        if len(states) != len(observation):
            raise ShapeError("batch", expected=(len(states), "nx"), got=tuple(observation.shape))
        waypoint = self._waypoint(states)
        self._age, self._step = self._age + 1, self._step + 1
        position, velocity = self.gains
        way = (waypoint - observation)[:, self.positions]
        faster = (waypoint - observation)[:, self.velocities]
        return (position * way + velocity * faster).clamp(*action_limits(self.spec, observation))

    def _renew(self, observation: Tensor) -> None:
        new, old = self.planner.plan(observation), self._plan
        if old is None or len(old.states) != len(new.states):
            age = torch.zeros(len(observation), dtype=torch.long, device=observation.device)
            self._plan, self._age = new, age
            return
        keep = new.certificate.status == Status.FALLBACK.value
        keep = keep & (old.certificate.status != Status.FALLBACK.value)
        rows = keep.view(-1, 1, 1)
        certificate = type(new.certificate)(
            *(
                torch.where(keep, getattr(old.certificate, name), getattr(new.certificate, name))
                for name in ("status", "margin", "risk", "residual")
            )
        )
        states = torch.where(rows, old.states, new.states)
        self._plan = Plan(states, torch.where(rows, old.actions, new.actions), certificate)
        self._age = torch.where(keep, self._age, 0)

    def _waypoint(self, states: Tensor) -> Tensor:
        """Return plan state t + 1, and past the end the last one at rest, shape (batch, nx)."""
        last = states.shape[1] - 1
        row = torch.arange(len(states), device=states.device)
        waypoint = states[row, (self._age + 1).clamp(max=last)].clone()
        over = (self._age + 1 > last).unsqueeze(1)
        still = torch.where(over, 0.0, waypoint[:, self.velocities])
        waypoint[:, self.velocities] = still
        return waypoint

"""Adaptive chance-constraint safeguards (ACS): a learned critic's bound, kept by small corrections.

Source: Chen, Zhao, He, Chen, Zhao, Gong and Liu, "Safe Reinforcement Learning via Hierarchical
Adaptive Chance-Constraint Safeguards", IROS 2024 (arXiv 2310.03379). The constraint is that of the
authors' prototype; the Newton correction and the statements on what follows are ours.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from safectl.errors import ShapeError
from safectl.safeguards.correction import CorrectionOptions, check_generator, correct
from safectl.safeguards.cost_critic import ChanceBound, CostCritic, is_row_critic
from safectl.safeguards.evidence import (
    action_limits,
    at_the_door,
    blind,
    check_batch,
    decide,
    decide_row,
    evidence,
    finite_rows,
)
from safectl.safeguards.fallback import Fallback, fallback_action
from safectl.types import Decision


@dataclass(frozen=True, slots=True)
class ACSOptions:
    """What is admissible, and how an action is corrected."""

    bound: ChanceBound = field(default_factory=ChanceBound)
    """How the largest admissible cost follows from the value of the state."""
    correction: CorrectionOptions = field(default_factory=CorrectionOptions)
    """How an action is moved."""
    recover: bool = True
    """Whether the best action found is taken where the bound is not reached, else the fallback."""


class Explanation(NamedTuple):
    """A decision, with what its certificate does not say.

    Attributes:
        decision: Action and certificate.
        threshold: delta(s), shape (batch, m).
        cost: Q_c(s, a) at the corrected or best action found, shape (batch, m).
        iterations: Steps of the correction, shape (batch,).
    """

    decision: Decision
    threshold: Float[Tensor, "batch m"]
    cost: Float[Tensor, "batch m"]
    iterations: Int[Tensor, " batch"]


class ACS:
    """Keeps Q_c(s, a) <= delta(s) = (1 - alpha) V_c(s) + alpha eps, for each of m learned costs.

    The proposal is clipped to the action limits and moved until the critic predicts a cost within
    the bound. Where K steps do not get there, the best action found (that of greatest recovery;
    filtering it again may find a better one) is returned with `Status.FALLBACK`; with
    `recover=False`, or where the inputs or the critic are not finite, it is the fallback.

    The margin is the smallest of delta - Q_c, the risk the sum of Q_c within [0, 1]: for first-hit
    critics without a discount a bound on the probability of becoming unsafe at any later time under
    the policy that the critic describes, with a discount on that of the next step alone.

    What follows if the critic is exact and describes the safeguarded policy:

    * Where V_c(s) <= eps, a certified action is unsafe in the next step with probability at most
      eps. Without `gamma_correction` some action is certified (the one of least Q_c).
    * If every visited action is certified, E[V_c] stays at or below eps if it starts there, and
      every single step is unsafe with probability at most eps; if it starts above, the excess
      shrinks at least by the factor 1 - alpha per step.
    * With errors of at most x in V_c and y in Q_c - V_c, the same holds with eps + x + y / alpha.
    * With a discounted critic, the bound on E[V_c] needs `gamma_correction`.

    Not promised: anything about whole episodes. The bound is one per step, and violations add up:
    for a level of an episode of T steps take eps / T. Nor anything where the status is `FALLBACK`,
    where V_c(s) > eps beyond the shrinking excess, about a critic outside its training data, or
    about the policy without this safeguard.

    Args:
        critic: Predicts the costs, in the dtype of the observations.
        fallback: Taken where nothing can be computed; its specification gives the action limits.
        options: May be replaced at any time, for example by a schedule of the tolerance.
        generator: Draws the candidates; needed if the options ask for some.

    Raises:
        RangeError: If the options ask for candidates and there is no generator; also where the
            options are replaced.
    """

    def __init__(
        self,
        critic: CostCritic,
        *,
        fallback: Fallback,
        options: ACSOptions | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.critic, self.fallback, self.generator = critic, fallback, generator
        self.options = options or ACSOptions()

    @property
    def options(self) -> ACSOptions:
        """What is admissible, and how an action is corrected."""
        return self._options

    @options.setter
    def options(self, options: ACSOptions) -> None:
        check_generator(options.correction, self.generator)
        self._options = options

    @property
    def claim(self) -> str:
        """The bound on the critic, and what it stands for."""
        bound = self.options.bound
        kept, constant = 1.0 - bound.recovery_rate, bound.recovery_rate * bound.tolerance
        largest = f"{bound.gamma_correction:g} ({kept:g} V_c(s) + {constant:g})"
        return (
            f"Q_c(s, a) <= {largest} by the critic's prediction, per step and not per episode; "
            f"fallback: {self.fallback.name}"
        )

    def filter(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Return an action within the bound per row, else the best one found or the fallback.

        Raises:
            ShapeError, RangeError: As `explain`.
        """
        return self.explain(observation, action).decision

    @torch.no_grad()
    def explain(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Explanation:
        """Filter, and return the evidence behind the decision.

        Raises:
            ShapeError, RangeError: As `check_batch`, or if the critic gives another shape.
        """
        check_batch(self.fallback.spec, observation, action, width=self.fallback.spec.nx)
        limits = action_limits(self.fallback.spec, action)
        seen = finite_rows(observation)
        usable = seen & finite_rows(action)
        state, proposal = observation, action
        all_usable = bool(usable.all())
        if not all_usable:
            state, proposal = at_the_door(seen, observation), at_the_door(usable, action)
        is_one_row = action.shape[0] == 1 and action.is_cpu and action.dtype == torch.float32
        critic = self.critic
        if is_one_row and is_row_critic(critic):
            critic = critic.for_row(state)
        value = critic.value(state)
        if value.ndim != 2 or len(value) != len(action):
            raise ShapeError("value", expected=(len(action), "m"), got=tuple(value.shape))
        threshold = self.options.bound.threshold(value)
        options = self.options.correction
        found = correct(
            critic, state, proposal, threshold, limits, options, generator=self.generator
        )
        risk = found.cost.sum(-1).clamp(0.0, 1.0)
        if is_one_row and all_usable:
            row = decide_row(
                action[0].numpy(),
                found.action[0].numpy(),
                (threshold - found.cost).min().item(),
                (limits.low.numpy(), limits.high.numpy()),
                risk=risk.item(),
                recovers=self.options.recover,
            )
            if row is not None:
                return Explanation(row, threshold, found.cost, found.iterations)
        candidate = evidence(found.action, threshold - found.cost, limits, risk=risk)
        last_resort, certified = candidate, candidate.residual == 0.0
        recovers = usable & candidate.residual.isfinite() & self.options.recover
        if not bool((usable & (certified | recovers)).all()):
            named = fallback_action(self.fallback, observation, limits)
            named = torch.where(recovers.unsqueeze(-1), found.action, named)
            room = threshold - critic.cost(state, named)
            last_resort = blind(evidence(named, room, limits), seen)
        decision = decide(action, candidate, last_resort, limits=limits, usable=usable)
        return Explanation(decision, threshold, found.cost, found.iterations)

"""What a safety value Psi learns from a rollout: labels between 0 and 1.

Arrays have one row per step and one column per environment. A column holds episodes one after the
other; the last may be cut by the end of the rollout. Its fate is unknown then, and Psi of the state
at the cut stands for it (a cut episode is not one that ended well).

A safety advantage A(s_t, a_t) learns y_t - Psi(s_t) from these labels y: with the discount 1 that
is the sum over the rest of the episode of Psi(s') - Psi(s), with y in place of Psi at its end. With
a discount inside the terms only, that sum drifts by up to (1 - gamma) per remaining step.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def budget_labels(
    cost: Float[Tensor, "steps envs"],
    end: Bool[Tensor, "steps envs"],
    safety_at_cut: Float[Tensor, " envs"],
    *,
    budget: float,
    spent: Float[Tensor, " envs"] | None = None,
) -> Float[Tensor, "steps envs"]:
    """Label every step with whether its whole episode costs less than a budget.

    An episode without any cost counts as safe whatever the budget, so 0 asks for no violation.

    Args:
        cost: Of each step, >= 0.
        end: Whether the episode ended with this step, by failure or by its time limit.
        safety_at_cut: Psi at the observation after the last step.
        budget: Smallest cost of an episode that is not safe.
        spent: Cost before the first step, of the episodes that began in an earlier rollout.
    """
    before = torch.zeros_like(safety_at_cut) if spent is None else spent
    totals = torch.empty_like(cost)
    for step in range(len(cost)):
        totals[step] = before + cost[step]
        before = torch.where(end[step], 0.0, totals[step])
    labels = torch.empty_like(cost)
    label = torch.where(_exceeds(totals[-1], budget), 0.0, safety_at_cut)
    for step in reversed(range(len(cost))):
        safe = (~_exceeds(totals[step], budget)).to(cost)
        label = torch.where(end[step], safe, label)
        labels[step] = label
    return labels


def horizon_labels(
    cost: Float[Tensor, "steps envs"],
    end: Bool[Tensor, "steps envs"],
    safety_at_cut: Float[Tensor, " envs"],
    *,
    horizon: int | None = None,
) -> Float[Tensor, "steps envs"]:
    """Label every step with whether its next `horizon` steps have no cost, within the episode.

    Args:
        cost: Of each step; above zero is a violation.
        end: As in `budget_labels`.
        safety_at_cut: As in `budget_labels`; used where neither a violation nor the end of the
            episode nor the horizon lies before the cut.
        horizon: Steps, at least 1; None for the rest of the episode, which is Psi of equation (2).
    """
    labels = torch.empty_like(cost)
    violation = torch.full_like(safety_at_cut, torch.inf)  # steps until the next one
    cut = torch.zeros_like(safety_at_cut)  # steps until the cut, infinite within whole episodes
    reach = torch.inf if horizon is None else float(horizon)
    for step in reversed(range(len(cost))):
        violation = torch.where(end[step], torch.inf, violation) + 1.0
        violation = torch.where(cost[step] > 0.0, 1.0, violation)
        cut = torch.where(end[step], torch.inf, cut) + 1.0
        label = torch.where(cut < reach, safety_at_cut, 1.0)
        violates = (violation <= reach) & (violation < torch.inf)
        labels[step] = torch.where(violates, 0.0, label)
    return labels


def _exceeds(total: Tensor, budget: float) -> Tensor:
    return (total >= budget) & (total > 0.0)

"""A task so small that Monte-Carlo gives the truth: a disturbed point in the unit disc."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from safectl.models import ScoreNetwork, horizon_labels

STEPS = 60
"""Length of an episode; every episode goes on to its time limit."""
HORIZON = 20
"""Steps for which a state counts as safe if none of them leaves the disc."""
_PULL, _NOISE = 0.02, 0.12  # towards the centre per step; standard deviation per step


class Critic(NamedTuple):
    """Psi as learned, and the loss at the end."""

    safety: ScoreNetwork
    loss: float


def step(state: Float[Tensor, "rows 2"], generator: torch.Generator) -> Float[Tensor, "rows 2"]:
    """Return the next states: pulled to the centre and pushed at random."""
    push = torch.randn(state.shape, generator=generator)
    return (1.0 - _PULL) * state + _NOISE * push


def starts(count: int, generator: torch.Generator) -> Float[Tensor, "rows 2"]:
    """Draw states in the square around the disc."""
    return 2.0 * torch.rand(count, 2, generator=generator) - 1.0


def is_outside(state: Float[Tensor, "rows 2"]) -> Bool[Tensor, " rows"]:
    """Return which states cost 1 to enter."""
    return state.square().sum(-1) > 1.0


def monte_carlo(
    state: Float[Tensor, "rows 2"], *, repeats: int, generator: torch.Generator
) -> Float[Tensor, " rows"]:
    """Return in which share of repeated trials the next `HORIZON` steps stay inside."""
    now = state.repeat_interleave(repeats, 0)
    safe = torch.ones(len(now), dtype=torch.bool)
    for _ in range(HORIZON):
        now = step(now, generator)
        safe &= ~is_outside(now)
    return safe.reshape(len(state), repeats).float().mean(1)


def learn(*, episodes: int, updates: int, generator: torch.Generator) -> Critic:
    """Learn Psi by cross-entropy from one rollout that is cut before its episodes end.

    Steps within the horizon of the cut are left out: their labels would be the network's own.
    """
    states, costs = [starts(episodes, generator)], []
    for _ in range(STEPS):
        states.append(step(states[-1], generator))
        costs.append(is_outside(states[-1]).float())
    cost = torch.stack(costs)
    label = horizon_labels(
        cost, torch.zeros_like(cost, dtype=torch.bool), torch.zeros(episodes), horizon=HORIZON
    )
    known = STEPS - HORIZON + 1
    observation, label = torch.stack(states[:known]).flatten(0, 1), label[:known].reshape(-1, 1)
    safety = ScoreNetwork(2, 0, generator=generator)
    optimiser = torch.optim.Adam(safety.parameters(), lr=3e-3)
    loss = torch.zeros(())
    for _ in range(updates):
        rows = torch.randint(len(label), (1024,), generator=generator)
        loss = nn.functional.binary_cross_entropy_with_logits(
            safety(observation[rows]), label[rows]
        )
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return Critic(safety, float(loss.detach()))

"""What keeps F small at actions that the data do not hold: penalties that are added to the loss.

Equations: Jeen, Bewley and Cullen, "Zero-Shot Reinforcement Learning from Low Quality Data",
NeurIPS 2024 (arXiv 2309.15178), VC-FB and MC-FB; the forms over a batch are those of the released
implementation. The paper names DVC-FB as an ablation and the released code does not hold it: here
it is `value_penalty` on tasks that are all drawn from B, which is our reading of it.

A penalty that is pessimistic about rewards is optimistic about costs: do not read visit
probabilities from a model trained with one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.models.measure import values

UNIFORM, POLICY, NEXT, DATA = 6, 2, 2, 2
"""Candidates per state: uniform actions, the policy's at s, the policy's at s' (where F is then
evaluated), and copies of the action in the data."""

CANDIDATES = UNIFORM + POLICY + NEXT + DATA

MAX_ALPHA = 1e6


class Candidates(NamedTuple):
    """F of the candidates of every state, and how often each counts.

    Attributes:
        forward: Shape (heads, n, batch, nz).
        log_count: Logarithm of the number of copies that a candidate stands for, shape (n,).
    """

    forward: Float[Tensor, "heads n batch nz"]
    log_count: Float[Tensor, " n"]


def value_penalty(
    candidates: Candidates,
    data: Float[Tensor, "heads batch nz"],
    task: Float[Tensor, "batch nz"],
) -> Float[Tensor, ""]:
    """Return how far the values of the candidates exceed those of the data (VC-FB).

    P = sum_k mean_i [ log sum_n exp F_k(s_n, a_n, z_i)^T z_i - F_k(s_i, a_i, z_i)^T z_i ].

    Where all candidates are equal to the data, P is 2 ln 12.
    """
    q = values(candidates.forward, task) + candidates.log_count[:, None]
    return (q.logsumexp(1) - values(data, task)).mean(-1).sum()


def measure_penalty(
    candidates: Candidates,
    data: Float[Tensor, "heads batch nz"],
    backward: Float[Tensor, "batch nz"],
) -> Float[Tensor, ""]:
    """Return how far the measures of the candidates exceed those of the data (MC-FB).

    P = sum_k mean_ij [ log sum_n exp F_k(s_n, a_n, z_i)^T B(s'_j) - F_k(s_i, a_i, z_i)^T B(s'_j) ].
    """
    measures = candidates.forward @ backward.T + candidates.log_count[:, None, None]
    return (measures.logsumexp(1) - data @ backward.T).mean((-2, -1)).sum()


def log_alpha_gradient(
    log_alpha: Float[Tensor, ""], penalty: Float[Tensor, ""], budget: float
) -> Float[Tensor, ""]:
    """Return d/d(log alpha) of - 1/2 alpha (P - budget), with alpha = exp(log alpha) <= 1e6.

    Written out, because the released code obtains it by a backward pass through P, whose gradients
    on the networks it then discards.
    """
    alpha = log_alpha.exp()
    slope = -0.5 * alpha * (penalty.detach() - budget)
    return torch.where(alpha < MAX_ALPHA, slope, torch.zeros_like(slope))

"""Policies that stay within the data: imitation of its actions, the better ones more.

The form is that of advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177). For
forward-backward models the idea is FB-AW of Cetin, Touati and Ollivier (arXiv 2412.04368); that the
advantage is divided by its mean size over the batch is ours, because the scale of F^T z differs
between tasks and grows while it is learned.
"""

import torch
from jaxtyping import Float
from torch import Tensor

MAX_WEIGHT = 100.0
_TINY = 1e-8


def advantage_weights(
    advantage: Float[Tensor, " batch"], temperature: float
) -> Float[Tensor, " batch"]:
    """Return min(exp(A / temperature), 100), without gradient."""
    return (advantage.detach() / temperature).exp().clamp(max=MAX_WEIGHT)


def relative(advantage: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return A / mean |A| over the batch, which no scale of the values moves."""
    return advantage / advantage.abs().mean().clamp(min=_TINY)


def imitation_loss(
    mean: Float[Tensor, "batch nu"],
    action: Float[Tensor, "batch nu"],
    weight: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return sum_i w_i |mean_i - a_i|^2 / sum_i w_i.

    That is the weighted negative log-likelihood of a Gaussian of fixed deviation, up to a constant
    and a scale.
    """
    distance: Tensor = (mean - action).square().sum(-1)
    return torch.dot(weight, distance) / weight.sum()

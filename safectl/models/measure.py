"""The losses of a forward-backward model, as functions of what the networks returned.

M_k[i, j] = F_k(s_i, a_i, z_i)^T B(s'_j) is the density of the successor measure of transition i at
the next state of transition j, for head k. Equations: Jeen, Bewley and Cullen 2024 (arXiv
2309.15178) and Touati and Ollivier 2021 (arXiv 2103.07945); the forms over a batch are those of
their released implementations.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def densities(
    forward: Float[Tensor, "heads batch nz"], backward: Float[Tensor, "batch nz"]
) -> Float[Tensor, "heads batch batch"]:
    """Return M of every head."""
    return forward @ backward.T


def measure_loss(
    measure: Float[Tensor, "heads batch batch"],
    target: Float[Tensor, "batch batch"],
    discount: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return the squared Bellman residual of the density, up to a constant.

    L = 1/2 sum_k mean_{i != j} (M_k[i, j] - discount_i T[i, j])^2 - sum_k mean_i M_k[i, i].

    L rises in magnitude while M grows to its true scale; that is no divergence.

    Args:
        measure: M of both heads.
        target: T, the smaller entry (or the mean) of both target heads at the next state and policy
            action; no gradient flows into it.
        discount: gamma times what the world returned, 0 where an episode terminated.
    """
    residual = measure - discount.unsqueeze(-1) * target
    diagonal = measure.diagonal(dim1=-2, dim2=-1)
    return 0.5 * _off_diagonal_mean(residual.square()).sum() - diagonal.mean(-1).sum()


def orthonormality_loss(backward: Float[Tensor, "batch nz"]) -> Float[Tensor, ""]:
    """Push E[B B^T] towards the identity.

    L = mean_{i != j} (B_i^T B_j)^2 - 2 mean_i B_i^T B_i; the second term is constant on the sphere.
    """
    products = backward @ backward.T
    return _off_diagonal_mean(products.square()) - 2.0 * products.diagonal().mean()


def value_loss(
    forward: Float[Tensor, "heads batch nz"],
    target: Float[Tensor, "heads batch nz"],
    backward: Float[Tensor, "batch nz"],
    task: Float[Tensor, "batch nz"],
    discount: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return the squared Bellman residual of Q = F^T z under the reward that z stands for.

    r(s') = B(s')^T Sigma^-1 z with Sigma = E[B B^T] over the batch, y = r + discount min_k Q_k(s').
    From the released implementation of Touati and Ollivier; optional.

    Args:
        forward: F at the transition.
        target: F of the target networks at the next state and policy action.
        backward: B at the next state; no gradient flows into it.
        task: z per row.
        discount: As in `measure_loss`.
    """
    backward = backward.detach()
    covariance = backward.T @ backward / len(backward)
    weights: Tensor = torch.linalg.lstsq(covariance, task.T).solution.T
    reward = (backward * weights).sum(-1)
    aim = reward + discount * values(target, task).amin(0)
    return (values(forward, task) - aim.detach()).square().mean(-1).sum()


def values(
    forward: Float[Tensor, "heads *batch nz"], task: Float[Tensor, "*#batch nz"]
) -> Float[Tensor, "heads *batch"]:
    """Return Q = F^T z of every head."""
    return (forward * task).sum(-1)


def actor_loss(
    forward: Float[Tensor, "heads batch nz"], task: Float[Tensor, "batch nz"]
) -> Float[Tensor, ""]:
    """Return - mean min_k F_k(s, pi_z(s), z)^T z."""
    return -values(forward, task).amin(0).mean()


def _off_diagonal_mean(matrix: Float[Tensor, "*heads batch batch"]) -> Float[Tensor, "*heads"]:
    rows = matrix.shape[-1]
    total = matrix.sum((-2, -1)) - matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total / (rows * (rows - 1))

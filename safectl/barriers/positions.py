"""Where the positions of a shape stand in the state; the other entries do not matter to it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def select(state: Tensor, positions: Sequence[int]) -> Tensor:
    """Return the entries of states (batch, nx), shape (batch, d)."""
    return state[:, list(positions)]


def spread(vectors: Tensor, positions: Sequence[int], state: Tensor) -> Tensor:
    """Put the last axis, one entry per position, at its place in a zero state."""
    index = torch.tensor(positions, device=state.device)
    zeros = vectors.new_zeros(*vectors.shape[:-1], state.shape[-1])
    return zeros.index_copy(-1, index, vectors)

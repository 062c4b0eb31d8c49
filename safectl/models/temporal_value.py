"""The value network of Diffuser: the down path of its U-Net, ending in one number per plan."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from safectl.models.temporal_unet import ResidualBlock, TimeEmbedding


class TemporalValue(nn.Module):
    """Predicts the discounted return of a noisy plan; the gradient guides the sampler.

    Args:
        width: Entries D of a transition.
        horizon: States H of a plan.
        channels: Channels of the first level, a multiple of 16.
        multipliers: Channels of each level, as multiples of `channels`.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        *,
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2, 4, 8),
    ) -> None:
        super().__init__()
        widths = [width, *(channels * multiplier for multiplier in multipliers)]
        last = widths[-1]
        stages = [*pairwise(widths), (last, last // 2), (last // 2, last // 4)]
        self.time = TimeEmbedding(channels)
        self.levels = nn.ModuleList()
        length = horizon
        for index, (before, after) in enumerate(stages):
            blocks = [ResidualBlock(before, after, channels)]
            if index < len(multipliers):
                blocks.append(ResidualBlock(after, after, channels))
            half = nn.Conv1d(after, after, 3, stride=2, padding=1)
            self.levels.append(nn.ModuleList([*blocks, half]))
            length = (length + 1) // 2
        features = last // 4 * length
        self.head = nn.Sequential(
            nn.Linear(features + channels, features // 2), nn.Mish(), nn.Linear(features // 2, 1)
        )

    def forward(
        self, plan: Float[Tensor, "batch H D"], step: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Return the value of each plan."""
        time, x = self.time(step), plan.transpose(1, 2)
        for level in self.levels:
            *blocks, half = level.children()
            for block in blocks:
                x = block(x, time)
            x = half(x)
        found: Tensor = self.head(torch.cat([x.flatten(1), time], dim=-1))
        return found.squeeze(-1)

"""The temporal U-Net of Diffuser: all convolutions run along the time of a plan.

Source: M. Janner, Y. Du, J. Tenenbaum, S. Levine, "Planning with diffusion for flexible behavior
synthesis", ICML 2022, and its released code; the parameter counts are tested against it.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from safectl.errors import RangeError, ShapeError

GROUPS = 8
"""Of the group normalisation; every width is a multiple of it."""


class TemporalUnet(nn.Module):
    """Predicts the clean plan from a noisy one and its diffusion step.

    Args:
        width: Entries D of a transition: action and observation.
        channels: Channels of the first level, a multiple of 8 and at least 16.
        multipliers: Channels of each level, as multiples of `channels`.

    Raises:
        RangeError: If the channels are no multiple of 8 or there is no level.
    """

    def __init__(
        self, width: int, *, channels: int = 32, multipliers: Sequence[int] = (1, 4, 8)
    ) -> None:
        super().__init__()
        _check(channels, multipliers)
        widths = [width, *(channels * multiplier for multiplier in multipliers)]
        levels = list(pairwise(widths))
        self.divisor = 2 ** (len(levels) - 1)
        self.time = TimeEmbedding(channels)
        self.down = nn.ModuleList()
        for index, (before, after) in enumerate(levels):
            last = index == len(levels) - 1
            half = nn.Identity() if last else nn.Conv1d(after, after, 3, stride=2, padding=1)
            self.down.append(_level(before, after, channels, half))
        widest = widths[-1]
        self.middle = nn.ModuleList(ResidualBlock(widest, widest, channels) for _ in range(2))
        self.up = nn.ModuleList()
        for before, after in reversed(levels[1:]):
            double = nn.ConvTranspose1d(before, before, 4, stride=2, padding=1)
            self.up.append(_level(2 * after, before, channels, double))
        self.head = nn.Sequential(_conv_block(channels, channels), nn.Conv1d(channels, width, 1))

    def forward(
        self, plan: Float[Tensor, "batch H D"], step: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch H D"]:
        """Return the prediction.

        Raises:
            ShapeError: If H is not a multiple of 2^(levels - 1).
        """
        if plan.shape[1] % self.divisor:
            expected = ("batch", f"a multiple of {self.divisor}", plan.shape[2])
            raise ShapeError("plan", expected=expected, got=tuple(plan.shape))
        time, x, skips = self.time(step), plan.transpose(1, 2), list[Tensor]()
        for level in self.down:
            first, second, half = level.children()
            x = second(first(x, time), time)
            skips.append(x)
            x = half(x)
        for block in self.middle:
            x = block(x, time)
        for level in self.up:
            first, second, double = level.children()
            x = torch.cat([x, skips.pop()], dim=1)
            x = double(second(first(x, time), time))
        found: Tensor = self.head(x)
        return found.transpose(1, 2)


class TimeEmbedding(nn.Module):
    """Sinusoids of the diffusion step, then two linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        rates = torch.exp(-math.log(10_000.0) / (half - 1) * torch.arange(half))
        self.register_buffer("rates", rates, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.Mish(), nn.Linear(4 * channels, channels)
        )

    def forward(self, step: Int[Tensor, " batch"]) -> Float[Tensor, "batch channels"]:
        """Return the embedding."""
        rates: Tensor = self.get_buffer("rates")
        angle = step.unsqueeze(-1).to(rates) * rates
        found: Tensor = self.layers(torch.cat([angle.sin(), angle.cos()], dim=-1))
        return found


class ResidualBlock(nn.Module):
    """Two convolutions with the time added between them, beside a 1x1 convolution."""

    def __init__(self, before: int, after: int, time: int, *, kernel: int = 5) -> None:
        super().__init__()
        self.first = _conv_block(before, after, kernel)
        self.second = _conv_block(after, after, kernel)
        self.time = nn.Sequential(nn.Mish(), nn.Linear(time, after))
        self.direct = nn.Identity() if before == after else nn.Conv1d(before, after, 1)

    def forward(
        self, x: Float[Tensor, "batch before H"], time: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch after H"]:
        """Return the block's output."""
        hidden = self.first(x) + self.time(time).unsqueeze(-1)
        found: Tensor = self.second(hidden) + self.direct(x)
        return found


def _level(before: int, after: int, time: int, resample: nn.Module) -> nn.ModuleList:
    first, second = ResidualBlock(before, after, time), ResidualBlock(after, after, time)
    return nn.ModuleList([first, second, resample])


def _conv_block(before: int, after: int, kernel: int = 5) -> nn.Sequential:
    convolution = nn.Conv1d(before, after, kernel, padding=kernel // 2)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, after), nn.Mish())


def _check(channels: int, multipliers: Sequence[int]) -> None:
    if channels < 2 * GROUPS or channels % GROUPS:
        raise RangeError("channels", value=channels, expected="a multiple of 8, at least 16")
    if not multipliers:
        raise RangeError("multipliers", value=(), expected="at least one level")

"""Settings of diffusion planners, and a named one per world and machine.

Source of the full ones: the released configurations of Diffuser (Janner et al., ICML 2022) and
SafeDiffuser (Xiao et al., ICLR 2025), with a budget of 2e5 updates in place of 2e6.
"""

from dataclasses import dataclass, replace
from typing import Literal

from safectl.errors import RangeError, UnknownNameError


@dataclass(frozen=True, slots=True)
class DiffuserConfig:
    """Network, diffusion process and training.

    Raises:
        RangeError: If a number is out of range.
    """

    dataset: str = "umaze"
    """World whose data are made, or a folder or file of data."""
    data_steps: int = 1_000_000
    """Steps of the world in the data that are made."""
    horizon: int = 128
    """States H of a plan."""
    diffusion_steps: int = 64
    """T, the indices of the noise schedule."""
    channels: int = 32
    """Channels of the first level of the U-Net, a multiple of 8."""
    multipliers: tuple[int, ...] = (1, 4, 8)
    """Channels of each level as multiples of the first."""
    normaliser: Literal["limits", "gaussian"] = "limits"
    """How entries are scaled."""
    clips: bool = True
    """Limit predictions to [-1, 1]."""
    has_goal: bool = True
    """Impose the last observation as well as the first."""
    pads: bool = False
    """Let plans run past the end of an episode, with zeros."""
    action_weight: float = 1.0
    """Weight of the first action in the loss."""
    batch: int = 64
    """Plans per update."""
    learning_rate: float = 2e-4
    """Of Adam, constant."""
    updates: int = 200_000
    """Optimiser steps."""
    ema_decay: float = 0.995
    """Of the averaged weights, which are the ones that plan."""
    ema_every: int = 10
    """Updates between two averages."""
    ema_from: int = 2000
    """Update from which the average is no copy."""
    checkpoint_every: int = 1000
    """Updates between two checkpoints."""
    seed: int = 0
    """Of data, first weights, rows and noise."""

    def __post_init__(self) -> None:
        for name in ("horizon", "diffusion_steps", "batch", "updates", "ema_every"):
            if getattr(self, name) < 1:
                raise RangeError(name, value=getattr(self, name), expected="at least 1")
        if not (self.learning_rate > 0.0 and 0.0 <= self.ema_decay < 1.0):
            value = (self.learning_rate, self.ema_decay)
            raise RangeError("learning_rate, ema_decay", value=value, expected="> 0, in [0, 1)")


_MAZE = DiffuserConfig()
_LARGE = DiffuserConfig(
    dataset="large", data_steps=4_000_000, horizon=384, diffusion_steps=256, batch=256
)
_HOPPER = DiffuserConfig(
    dataset="hopper",
    horizon=32,
    diffusion_steps=20,
    multipliers=(1, 2, 4, 8),
    normaliser="gaussian",
    clips=False,
    has_goal=False,
    pads=True,
    action_weight=10.0,
)

_SMALL = DiffuserConfig(
    multipliers=(1, 2, 4, 4),
    channels=16,
    batch=32,
    learning_rate=1.5e-3,
    updates=8_000,
    ema_decay=0.98,
    ema_from=500,
)

PRESETS = {
    "umaze-small": _SMALL,
    "medium-small": replace(_SMALL, dataset="medium", data_steps=2_000_000, horizon=256),
    "umaze": _MAZE,
    "medium": DiffuserConfig(
        dataset="medium", data_steps=2_000_000, horizon=256, diffusion_steps=256, batch=128
    ),
    "large": _LARGE,
    "hopper": _HOPPER,
    "hopper-small": replace(
        _HOPPER,
        channels=16,
        multipliers=(1, 2, 4),
        batch=32,
        learning_rate=1e-3,
        updates=4_000,
        ema_decay=0.98,
        ema_from=500,
    ),
    "walker2d": replace(_HOPPER, dataset="walker2d"),
}
"""Those that end in `-small` are for two cores (`safediffuser.cpu_training`); the others want a
GPU."""


def preset(name: str) -> DiffuserConfig:
    """Return named settings.

    Raises:
        UnknownNameError: If there are none of that name.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, known=list(PRESETS))
    return PRESETS[name]

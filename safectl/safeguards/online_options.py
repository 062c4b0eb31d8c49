"""When and how a safety layer learns while it guards."""

import math
from dataclasses import dataclass

from safectl.errors import RangeError


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """When and how an `OnlineSafetyLayer` learns."""

    hidden: tuple[int, ...] = (64, 64)
    """Width of each hidden layer of the model."""
    warm_up: int = 16_384
    """Transitions before the first fit; until then only the action limits are kept."""
    interval: int = 8_192
    """Transitions between two refits; as many of the newest ones calibrate the margin."""
    capacity: int = 200_000
    """Transitions kept; the oldest are overwritten."""
    first_steps: int = 600
    """Steps of Adam in the first fit."""
    steps: int = 150
    """Steps of Adam in each refit."""
    batch: int = 512
    """Transitions per step of Adam."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    delta: float = 0.01
    """Probability, in (0, 1), with which an error may exceed the margin."""
    near: float = 0.25
    """A transition calibrates if its signal is above this share of the limit, counted from the
    limit downwards: y > limit - near |limit|. All do where too few are that near."""
    rate: float = 0.5
    """Share of the distance to the limit that one step may use, in (0, 1]."""

    def __post_init__(self) -> None:
        for name in ("delta", "near"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise RangeError(name, value=getattr(self, name), expected="a number in (0, 1)")
        if not 0.0 < self.rate <= 1.0:
            raise RangeError("rate", value=self.rate, expected="a number in (0, 1]")
        for name in ("interval", "first_steps", "steps", "batch"):
            if getattr(self, name) < 1:
                raise RangeError(name, value=getattr(self, name), expected="at least 1")
        if not self.interval < self.warm_up <= self.capacity:
            sizes = (self.interval, self.warm_up, self.capacity)
            expected = "interval < warm_up <= capacity: each fit holds one interval back"
            raise RangeError("interval, warm_up, capacity", value=sizes, expected=expected)
        if self.interval * self.delta < 1.0:
            expected = f"at least {math.ceil(1.0 / self.delta)}, or delta has no quantile"
            raise RangeError("interval", value=self.interval, expected=expected)

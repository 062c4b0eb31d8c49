"""What one update of a forward-backward model depends on: settings, transitions, random numbers."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from safectl.errors import RangeError, UnknownNameError
from safectl.models import conservative

METHODS = ("fb", "vc-fb", "mc-fb", "dvc-fb")
"""Variants of the penalty: none, on values, on measures, on the values of tasks drawn from B."""

DISCOUNT = 0.98
"""Published discount per step of most domains; 0.99 for the point-mass maze."""

SMOOTHING, CUT = 0.2, 0.3
"""Standard deviation of the noise on policy actions, and where it is cut."""


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """How a model learns; the defaults are those of the released implementation.

    Raises:
        RangeError: If a number lies outside its range.
        UnknownNameError: If the method is none of `METHODS`.
    """

    method: str = "fb"
    """`fb`, `vc-fb`, `mc-fb` or `dvc-fb`."""
    learning_rate: float = 1e-4
    """Step size of Adam for F and B, > 0."""
    actor_learning_rate: float = 1e-4
    """Step size of Adam for the policy, > 0. The released code has 3e-5 with a penalty, the paper
    1e-4."""
    polyak: float = 0.01
    """Share of the new weights in the target networks per update, in (0, 1]."""
    mix: float = 0.5
    """Share of tasks that are B of an observation of the batch, in [0, 1]."""
    orthonormality: float = 1.0
    """Weight of the orthonormality of B, >= 0."""
    value_weight: float = 0.0
    """Weight of the loss on Q, >= 0; 0 leaves it out, as the published runs do."""
    budget: float = 50.0
    """Size of the penalty that alpha aims at, > 2 ln 12 = 4.97, below which alpha only grows."""
    alpha_learning_rate: float = 1e-4
    """Step size of Adam for the logarithm of alpha, >= 0; 0 keeps the first alpha."""
    first_alpha: float = 1.0
    """Weight of the penalty at the start, > 0."""
    target_heads: Literal["min", "mean"] = "min"
    """What the target of the measure takes of its two heads, entry by entry: the smaller, as
    published, or their mean. The smaller is pessimistic about rewards but loses mass in every
    update, which hides visits: a model that is asked for visits learns with `mean` (decision 0113).
    """
    actor: Literal["value", "aw"] = "value"
    """What the policy learns: the action of most value, or (`aw`) to imitate the actions of the
    data, those of more advantage more."""
    temperature: float = 0.5
    """Of `aw`, > 0: weights are exp(advantage / mean size of an advantage / temperature)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Numbers within the networks while training. `bfloat16` is twice as fast where the processor
    has it; weights, losses and optimisers stay in float32."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("method", self.method, known=METHODS)
        floor = 2.0 * math.log(conservative.CANDIDATES)
        for name, holds, expected in (
            ("learning_rate", self.learning_rate > 0.0, "a number > 0"),
            ("actor_learning_rate", self.actor_learning_rate > 0.0, "a number > 0"),
            ("polyak", 0.0 < self.polyak <= 1.0, "a number in (0, 1]"),
            ("mix", 0.0 <= self.mix <= 1.0, "a number in [0, 1]"),
            ("orthonormality", self.orthonormality >= 0.0, "a number >= 0"),
            ("value_weight", self.value_weight >= 0.0, "a number >= 0"),
            ("budget", self.budget > floor, f"more than 2 ln 12 = {floor:.3f}"),
            ("alpha_learning_rate", self.alpha_learning_rate >= 0.0, "a number >= 0"),
            ("first_alpha", self.first_alpha > 0.0, "a number > 0"),
            ("target_heads", self.target_heads in ("min", "mean"), "min or mean"),
            ("actor", self.actor in ("value", "aw"), "value or aw"),
            ("temperature", self.temperature > 0.0, "a number > 0"),
        ):
            if not holds:
                raise RangeError(name, value=getattr(self, name), expected=expected)


class Batch(NamedTuple):
    """Transitions without rewards; `discount` is what the world returned, 0 at a termination."""

    observation: Float[Tensor, "batch nx"]
    action: Float[Tensor, "batch nu"]
    next_observation: Float[Tensor, "batch nx"]
    discount: Float[Tensor, " batch"]


class Draws(NamedTuple):
    """The random numbers of one update; noise is scaled and cut, `uniform` in [-1, 1]."""

    normal: Float[Tensor, "batch nz"]
    from_data: Bool[Tensor, " batch"]
    shuffle: Int[Tensor, " batch"]
    target_noise: Float[Tensor, "batch nu"]
    actor_noise: Float[Tensor, "batch nu"]
    uniform: Float[Tensor, "uniform batch nu"]
    policy_noise: Float[Tensor, "policy batch nu"]
    next_noise: Float[Tensor, "next batch nu"]


def draw(rows: int, nu: int, nz: int, mix: float, generator: torch.Generator) -> Draws:
    """Draw what one update needs, on the device of the generator."""
    device = generator.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def noise(*shape: int) -> Tensor:
        return (SMOOTHING * normal(*shape)).clamp(-CUT, CUT)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    return Draws(
        normal=normal(rows, nz),
        from_data=uniform(rows) < mix,
        shuffle=torch.randperm(rows, generator=generator, device=device),
        target_noise=noise(rows, nu),
        actor_noise=noise(rows, nu),
        uniform=2.0 * uniform(conservative.UNIFORM, rows, nu) - 1.0,
        policy_noise=noise(conservative.POLICY, rows, nu),
        next_noise=noise(conservative.NEXT, rows, nu),
    )

"""A trained model of plans and the coordinates that it works in."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.planners.diffusion import Denoiser
from safectl.planners.normaliser import Normaliser


@dataclass(frozen=True, slots=True, eq=False)
class PlanModel:
    """A trained model of plans.

    Attributes:
        denoiser: Predicts the clean plan from normalised ones.
        normaliser: Of a transition, action first.
        nu: Number of actions.
        horizon: States of a plan.
        kept: Its noise schedule.
        clips: Whether predictions are limited to [-1, 1].
        period: Time between two states [s].
    """

    denoiser: Denoiser
    normaliser: Normaliser
    nu: int
    horizon: int
    kept: Float[Tensor, " T"]
    clips: bool
    period: float

    @property
    def nx(self) -> int:
        """Number of observations."""
        return len(self.normaliser.centre) - self.nu

    @property
    def observation_normaliser(self) -> Normaliser:
        """Of the observation alone."""
        whole = self.normaliser
        return Normaliser(whole.centre[self.nu :], whole.scale[self.nu :], whole.is_bounded)

    def require_observations(self, rows: Tensor) -> None:
        """Refuse what is no batch of observations.

        Raises:
            ShapeError: If it has not the shape (batch, nx).
            RangeError: If its entries are no floating-point numbers.
        """
        if rows.ndim != 2 or rows.shape[1] != self.nx:
            raise ShapeError("observation", expected=("batch", self.nx), got=tuple(rows.shape))
        if not rows.is_floating_point():
            expected = "floating-point numbers, as observation.float() gives"
            raise RangeError("dtype of the observation", value=rows.dtype, expected=expected)

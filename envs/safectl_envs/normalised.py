"""A model whose actions are fractions of their limits, as learning libraries want them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.export.models import Motion, motion_of
from safectl.export.trace import Tracer
from safectl.types import Dynamics, Gaussian


class Normalised:
    """x' = f(x) + g(x) (limits * u): the action u lies in [-1, 1] where `model` has units.

    Args:
        model: A model with actions in SI units.
        limits: What 1 means for each action, in the model's units, positive.

    Raises:
        ShapeError: If there is not one limit per action.
        RangeError: If a limit is not positive and finite.
    """

    def __init__(self, model: Dynamics, limits: Sequence[float]) -> None:
        if len(limits) != model.nu:
            raise ShapeError("limits", expected=(model.nu,), got=(len(limits),))
        if not all(0.0 < limit < float("inf") for limit in limits):
            raise RangeError("limits", value=tuple(limits), expected="positive numbers")
        self.model, self.limits = model, tuple(limits)
        self.nx, self.nu = model.nx, model.nu

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return f(x) of the model."""
        return self.model.drift(state)

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return g(x) of the model times the limits."""
        return self.model.gain(state) * state.new_tensor(self.limits)

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return the model's prediction for the action in SI units."""
        return self.model.predict(state, action * action.new_tensor(self.limits))

    def motion(self, tracer: Tracer, state: str) -> Motion:
        """Append the model's operations, with its gain times the limits."""
        inner = motion_of(tracer, self.model, state)
        rows = len(inner.moving)
        scale = np.tile(self.limits, rows)
        gain = tracer.affine(inner.gain, scale, np.zeros(scale.size), name="model_gain_scaled")
        return replace(inner, gain=gain)


def unit_of(limit: float, unit: str) -> str:
    """Name the unit of an action whose 1 means `limit`, for example `10 N`."""
    return unit if limit == 1.0 else f"{limit:g} {unit}"

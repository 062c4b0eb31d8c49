"""The linear Safety Layer on a 0/1 cost, as a baseline.

Source: Dalal et al. 2018 (arXiv:1801.08757), closed form for one constraint. The cost is predicted
by c[k+1] = c[k] + g(s)^T a, where c[k] is the cost of the step before, zero at the start of an
episode. `safectl.safeguards.SafetyLayer` is the calibrated layer on a signal with a distance to
its limit; a 0/1 cost has none.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from safectl.errors import RangeError
from safectl_agents.acs.critic import perceptron
from safectl_agents.acs.lower import Actors, Corrected, Proposed, Sizes
from safectl_agents.acs.replay import CostSamples

_FLAT = 1e-8  # keeps the closed form finite where the gain vanishes, from the reference code


@dataclass(frozen=True, slots=True)
class LinearLayerSettings:
    """The layer and its fit.

    Raises:
        RangeError: If a number is not positive.
    """

    limit: float = 0.1
    """delta: largest predicted cost, > 0."""
    learning_rate: float = 3e-4
    """Step size of Adam, > 0."""
    hidden: tuple[int, ...] = (256, 256)
    """Units per hidden layer, ReLU."""

    def __post_init__(self) -> None:
        for name in ("limit", "learning_rate"):
            if not getattr(self, name) > 0.0:
                raise RangeError(name, value=getattr(self, name), expected="a number > 0")

    def build(self, sizes: Sizes) -> "LinearLayer":
        """Make the untrained layer."""
        return LinearLayer(self, sizes)


class LinearLayer:
    """a - lambda g(s) with lambda = max(0, (g^T a + c - delta) / (g^T g))."""

    def __init__(self, settings: LinearLayerSettings, sizes: Sizes) -> None:
        self.settings = settings
        self.gain = perceptron((sizes.nx, *settings.hidden, sizes.nu)).to(sizes.device)
        self.optimizer = torch.optim.Adam(
            self.gain.parameters(), lr=settings.learning_rate, fused=True
        )

    @torch.no_grad()
    def correct(self, proposed: Proposed, actors: Actors) -> Corrected:
        """Return the projection onto the predicted limit, clipped to the box.

        Where the model is not finite, the middle of the limits.
        """
        gain = self.gain(proposed.observation)
        predicted = (gain * proposed.action).sum(1, keepdim=True) + proposed.cost_before
        square = (gain * gain).sum(1, keepdim=True) + _FLAT
        multiplier = ((predicted - self.settings.limit) / square).clamp(min=0.0)
        action = (proposed.action - multiplier * gain).clamp(-1.0, 1.0)
        after = (gain * action).sum(1, keepdim=True) + proposed.cost_before
        residual = (after - self.settings.limit).clamp(min=0.0).squeeze(1)
        action = action.where(predicted.isfinite() & action.isfinite().all(1, keepdim=True), 0.0)
        return Corrected(action, (multiplier > 0.0).squeeze(1), residual)

    def update(
        self, batch: CostSamples, next_action: Float[Tensor, "batch nu"], actors: Actors
    ) -> dict[str, float]:
        """Fit g to the change of the cost."""
        gain = self.gain(batch.observations)
        predicted = (gain * batch.actions).sum(1, keepdim=True) + batch.costs_before
        loss = functional.mse_loss(predicted, batch.costs)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return {"cost_model_loss": float(loss.detach())}

    def penalty(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> None:
        """Return nothing: the policy learns from the reward alone."""

    def track(self) -> None:
        """Do nothing: there are no slow copies."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Gain and optimiser."""
        return ("gain", "optimizer")

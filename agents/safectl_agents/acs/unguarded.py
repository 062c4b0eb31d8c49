"""No lower layer: plain training, and reward shaping."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from safectl_agents.acs.lower import Actors, Corrected, Proposed, Sizes, kept
from safectl_agents.acs.replay import CostSamples


@dataclass(frozen=True, slots=True)
class UnguardedSettings:
    """Nothing to set."""

    def build(self, sizes: Sizes) -> "Unguarded":
        """Make the empty layer."""
        return Unguarded()


class Unguarded:
    """Executes every proposal and learns nothing."""

    def correct(self, proposed: Proposed, actors: Actors) -> Corrected:
        """Return the proposals."""
        return kept(proposed)

    def update(
        self, batch: CostSamples, next_action: Float[Tensor, "batch nu"], actors: Actors
    ) -> dict[str, float]:
        """Learn nothing."""
        return {}

    def penalty(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"]
    ) -> None:
        """Return nothing."""

    def track(self) -> None:
        """Do nothing."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Nothing to keep."""
        return ()

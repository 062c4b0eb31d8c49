"""Settings of safeguards that were learned, apart from what builds them; see `kinds.late`."""

from dataclasses import dataclass, field

from safectl.safeguards import ACSOptions


@dataclass(frozen=True, slots=True)
class ACSSettings:
    """The bound of a critic that ACSTD3, ACSSAC or ACSPPO has learned."""

    model: str = ""
    """Archive of `save`, or folder of a seed, relative to this file. The robot has the signals of
    the training, in its order and units."""
    options: ACSOptions = field(default_factory=ACSOptions)
    """Bound and correction, in the units of the actions."""


@dataclass(frozen=True, slots=True)
class VisitLimitSettings:
    """A limit on the probability of a visit to an unsafe set, by a forward-backward model."""

    run: str = ""
    """Folder of `safectl train fb` with `visits.safetensors`, relative to this file."""
    limit: float = 0.1
    """Largest admissible probability of a visit, in (0, 1)."""
    candidates: int = 64
    """Actions that are tried besides the proposal, the middle and the corners, >= 1."""

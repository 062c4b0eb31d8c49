"""Explicit memory: every `filter` is pure but this one, which tells memories what was decided."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Shaped
from torch import Tensor

from safectl.errors import RangeError
from safectl.types import Decision, Safeguard


@runtime_checkable
class Memory(Protocol):
    """One remembered value per row, changed only through these two methods."""

    def remember(self, decision: Decision, /) -> None:
        """Take note of the decision of this step, all rows at once."""
        ...

    def reset(self, rows: Bool[Tensor, " batch"], /) -> None:
        """Forget the marked rows."""
        ...


class Remembering:
    """A safeguard around another that reports every decision to the memories, once per step.

    Args:
        safeguard: Makes the decisions, and consults the memories.
        memories: `RateLimit` or `Hold` objects inside it.
    """

    def __init__(self, safeguard: Safeguard, memories: Sequence[Memory]) -> None:
        self.safeguard, self.memories = safeguard, tuple(memories)

    @property
    def claim(self) -> str:
        """The claim of the inner safeguard."""
        return self.safeguard.claim

    def filter(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Decide, then remember."""
        decision = self.safeguard.filter(observation, action)
        for memory in self.memories:
            memory.remember(decision)
        return decision

    def reset(self, rows: Bool[Tensor, " batch"], /) -> None:
        """Forget the marked rows everywhere: a new episode begins there."""
        for memory in self.memories:
            memory.reset(rows)


def require_remembered(safeguard: object, known: Sequence[object] = ()) -> None:
    """Refuse a rate limit that nobody tells what was decided: it would certify any jump.

    Args:
        safeguard: About to guard a loop, with what is inside it.
        known: Memories that are told.

    Raises:
        RangeError: If it is, or a chain holds, a memory that is not told.
    """
    if isinstance(safeguard, Remembering):
        require_remembered(safeguard.safeguard, (*known, *safeguard.memories))
    elif isinstance(safeguard, Memory) and not any(safeguard is one for one in known):
        name = type(safeguard).__name__
        expected = f"Remembering(safeguard, [the {name}]), which tells it what was decided"
        raise RangeError("safeguard", value=name, expected=expected)
    for part in getattr(safeguard, "safeguards", ()):
        require_remembered(part, known)

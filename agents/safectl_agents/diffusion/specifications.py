"""Named specifications, in the units of the observation.

Source of the large maze and of locomotion: Xiao et al., "SafeDiffuser", ICLR 2025 and its code;
`large-shifted` are the centres of SafeFlowMatcher (ICLR 2026), `narrow` the passage as cleaned in
DiRecT (2026). Those of the small and the medium maze are ours: the released one keeps clear of
where plans go.
"""

from collections.abc import Callable

from safectl.barriers import Superellipse, roof
from safectl.errors import UnknownNameError
from safectl.types import Barrier

Barriers = dict[str, Barrier]


def _umaze() -> Barriers:
    """A rounded square in the right corridor and an ellipse in the upper one.

    Both stand where the data pass, at the outer side, so that plans must leave the data: of the
    0.8 m of a corridor 0.35 m stay free.
    """
    return {
        "S-SPEC": Superellipse((1.05, 2.0), (0.3, 0.3)),
        "C-SPEC": Superellipse((2.0, 3.05), (0.4, 0.3), exponent=4.0),
    }


def _medium() -> Barriers:
    """An ellipse in the passage between the halves, a rounded square in the corridor to the goal.

    Both stand where the data pass: of the 0.8 m of a corridor 0.35 m stay free.
    """
    return {
        "S-SPEC": Superellipse((2.65, 3.0), (0.4, 0.3)),
        "C-SPEC": Superellipse((5.0, 6.35), (0.3, 0.4), exponent=4.0),
    }


def _large(shift: float = 0.0) -> Barriers:
    return {
        "S-SPEC": Superellipse((4.5 + shift, 5.3 + shift), (1.0, 1.0)),
        "C-SPEC": Superellipse((1.5 + shift, 4.8 + shift), (1.0, 1.0), exponent=4.0),
    }


_NARROW = (
    (1.3, 4.8, 1.0, 1.0),
    (4.3, 4.8, 1.0, 1.0),
    (1.8, 2.3, 0.5, 1.0),
    (2.8, 7.8, 1.8, 1.8),
    (6.3, 6.9, 1.0, 1.0),
    (5.6, 9.3, 1.0, 1.0),
)


def _narrow() -> Barriers:
    return {
        f"obstacle {index}": Superellipse((row, column), (high, wide), exponent=4.0)
        for index, (row, column, high, wide) in enumerate(_NARROW)
    }


def _roofs(height: int, velocity: int, simple: float, complex_: float) -> Barriers:
    return {
        "S-SPEC": roof(simple, position=height),
        "C-SPEC": roof(complex_, position=height, velocity=velocity, lookahead_s=0.1),
    }


HEIGHT_AND_SPEED = {"hopper": (0, 6), "walker2d": (0, 9)}
"""Entries of the observation of Gymnasium's tasks that a roof is over: z [m] and its rate [m/s]."""

SPECIFICATIONS: dict[str, Callable[[], Barriers]] = {
    "umaze": _umaze,
    "medium": _medium,
    "large": _large,
    "large-shifted": lambda: _large(-0.2),
    "narrow": _narrow,
    "hopper": lambda: _roofs(*HEIGHT_AND_SPEED["hopper"], 1.5, 1.6),
    "walker2d": lambda: _roofs(*HEIGHT_AND_SPEED["walker2d"], 1.3, 1.4),
}


def named_barriers(name: str) -> Barriers:
    """Return a named specification.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in SPECIFICATIONS:
        raise UnknownNameError("specification", name, known=list(SPECIFICATIONS))
    return SPECIFICATIONS[name]()

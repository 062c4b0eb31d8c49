"""Safe sets {x : h(x) >= 0}, their derivatives and their compositions."""

from safectl.barriers.barrier import HasGradient, Lie, Linearisation, lie_derivatives, linearise
from safectl.barriers.compose import Minimum, SoftMinimum, Stack
from safectl.barriers.discs import Discs, ObservedDiscs, speed_limit
from safectl.barriers.half_spaces import HalfSpaces, box, corridor, roof
from safectl.barriers.moving import Moving
from safectl.barriers.second_order import RelativeDegreeTwo, StoppingDistance
from safectl.barriers.superellipse import Superellipse

__all__ = [
    "Discs",
    "HalfSpaces",
    "HasGradient",
    "Lie",
    "Linearisation",
    "Minimum",
    "Moving",
    "ObservedDiscs",
    "RelativeDegreeTwo",
    "SoftMinimum",
    "Stack",
    "StoppingDistance",
    "Superellipse",
    "box",
    "corridor",
    "lie_derivatives",
    "linearise",
    "roof",
    "speed_limit",
]

"""Control-affine models with their units."""

from safectl.dynamics.bicycle import Bicycle
from safectl.dynamics.cartpole import CartPole, CartPoleParameters
from safectl.dynamics.linear import LinearDynamics, double_integrator
from safectl.dynamics.mass_spring_damper import MassSpringDamper, MassSpringDamperParameters
from safectl.dynamics.moments import Propagates, Uncertain, propagate_plan
from safectl.dynamics.unicycle import Unicycle

__all__ = [
    "Bicycle",
    "CartPole",
    "CartPoleParameters",
    "LinearDynamics",
    "MassSpringDamper",
    "MassSpringDamperParameters",
    "Propagates",
    "Uncertain",
    "Unicycle",
    "double_integrator",
    "propagate_plan",
]

"""Control-affine models with their units."""

from safectl.dynamics.cartpole import CartPole, CartPoleParameters
from safectl.dynamics.linear import LinearDynamics, double_integrator
from safectl.dynamics.mass_spring_damper import MassSpringDamper, MassSpringDamperParameters
from safectl.dynamics.unicycle import Unicycle

__all__ = [
    "CartPole",
    "CartPoleParameters",
    "LinearDynamics",
    "MassSpringDamper",
    "MassSpringDamperParameters",
    "Unicycle",
    "double_integrator",
]

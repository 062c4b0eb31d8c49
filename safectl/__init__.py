"""One safety specification in simulation, on the robot and on the microcontroller."""

from safectl.safeguards import BarrierQP, Brake, Chain, Clip, RateLimit, SafetyLayer
from safectl.spec import Signal, Spec
from safectl.types import Certificate, Decision, Policy, Safeguard, Status

__all__ = [
    "BarrierQP",
    "Brake",
    "Certificate",
    "Chain",
    "Clip",
    "Decision",
    "Policy",
    "RateLimit",
    "Safeguard",
    "SafetyLayer",
    "Signal",
    "Spec",
    "Status",
]

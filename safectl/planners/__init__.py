"""Planners: controllers that look several samples ahead."""

from safectl.planners.forward_model import ForwardModel, Jet, Layer, forward_model
from safectl.planners.ngpc import Ngpc, NgpcState, NgpcStep
from safectl.planners.ngpc_problem import NgpcProblem

__all__ = [
    "ForwardModel",
    "Jet",
    "Layer",
    "Ngpc",
    "NgpcProblem",
    "NgpcState",
    "NgpcStep",
    "forward_model",
]

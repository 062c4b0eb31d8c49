"""Planners: controllers that look several samples ahead."""

from safectl.planners.forward_model import ForwardModel, Jet, Layer, forward_model
from safectl.planners.linear_mpc import LinearMPC
from safectl.planners.ngpc import Ngpc, NgpcState, NgpcStep
from safectl.planners.ngpc_problem import NgpcProblem
from safectl.planners.towards import JointLine, Pursuit

__all__ = [
    "ForwardModel",
    "Jet",
    "JointLine",
    "Layer",
    "LinearMPC",
    "Ngpc",
    "NgpcProblem",
    "NgpcState",
    "NgpcStep",
    "Pursuit",
    "forward_model",
]

"""Planners: controllers that look several samples ahead."""

from safectl.planners.diffusion import Guidance, Imposed, PlanFilter, Sample, sample
from safectl.planners.diffusion_planner import DiffusionPlanner, Evidence, Proposal
from safectl.planners.following import PlanFollower
from safectl.planners.forward_model import ForwardModel, Jet, Layer, forward_model
from safectl.planners.invariance import Invariance, RelaxedSafe, RobustSafe, TimeVaryingSafe
from safectl.planners.invariance_qp import nearest_displacement
from safectl.planners.linear_mpc import LinearMPC
from safectl.planners.ngpc import Ngpc, NgpcState, NgpcStep
from safectl.planners.ngpc_problem import NgpcProblem
from safectl.planners.normaliser import Normaliser, gaussian_normaliser, limits_normaliser
from safectl.planners.plan_model import PlanModel
from safectl.planners.schedule import Step, cosine_schedule, sampling_steps
from safectl.planners.specification import Specification
from safectl.planners.towards import JointLine, Pursuit

__all__ = [
    "DiffusionPlanner",
    "Evidence",
    "ForwardModel",
    "Guidance",
    "Imposed",
    "Invariance",
    "Jet",
    "JointLine",
    "Layer",
    "LinearMPC",
    "Ngpc",
    "NgpcProblem",
    "NgpcState",
    "NgpcStep",
    "Normaliser",
    "PlanFilter",
    "PlanFollower",
    "PlanModel",
    "Proposal",
    "Pursuit",
    "RelaxedSafe",
    "RobustSafe",
    "Sample",
    "Specification",
    "Step",
    "TimeVaryingSafe",
    "cosine_schedule",
    "forward_model",
    "gaussian_normaliser",
    "limits_normaliser",
    "nearest_displacement",
    "sample",
    "sampling_steps",
]

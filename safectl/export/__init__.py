"""Programs: controllers that mean the same in torch, in NumPy and in C."""

from safectl.export.assemble import AffineSignal, Network, guarded_policy_program, policy_program
from safectl.export.chance import ChanceConstraint, chance_constrained_program
from safectl.export.emit_c import emit_c
from safectl.export.forward_model import forward_model_of
from safectl.export.golden import example_observations
from safectl.export.guard import guarded_program
from safectl.export.interpret import Steps, interpret, replay
from safectl.export.linear_mpc import linear_mpc_program
from safectl.export.native import Native
from safectl.export.ngpc import ngpc_program
from safectl.export.normaliser import Normaliser
from safectl.export.ops import Op
from safectl.export.program import Exportable, Program, State, network_spec
from safectl.export.quantise import Quantised, quantise, quantise_with_bound
from safectl.export.safety_layer import signal_of
from safectl.export.store import load_program, save_program
from safectl.export.torch_import import torch_network
from safectl.export.trace import Tracer
from safectl.export.tracking import follower_network, waypoint_spec
from safectl.export.verify import VerifyReport, verify
from safectl.export.watchdog import Mode, Watchdog

__all__ = [
    "AffineSignal",
    "ChanceConstraint",
    "Exportable",
    "Mode",
    "Native",
    "Network",
    "Normaliser",
    "Op",
    "Program",
    "Quantised",
    "State",
    "Steps",
    "Tracer",
    "VerifyReport",
    "Watchdog",
    "chance_constrained_program",
    "emit_c",
    "example_observations",
    "follower_network",
    "forward_model_of",
    "guarded_policy_program",
    "guarded_program",
    "interpret",
    "linear_mpc_program",
    "load_program",
    "network_spec",
    "ngpc_program",
    "policy_program",
    "quantise",
    "quantise_with_bound",
    "replay",
    "save_program",
    "signal_of",
    "torch_network",
    "verify",
    "waypoint_spec",
]

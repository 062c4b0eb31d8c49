"""Turning proposed actions into decisions with evidence.

`ConvexGuard` is in `safectl.safeguards.convex`, which is imported by name because CVXPY takes a
second to import.
"""

from safectl.safeguards.acs import ACS, ACSOptions, Explanation
from safectl.safeguards.affine_signal import Affine, AffineSignalModel
from safectl.safeguards.cbf import BarrierQP
from safectl.safeguards.chain import Chain
from safectl.safeguards.clip import Clip, RateLimit
from safectl.safeguards.correction import Correction, CorrectionOptions, correct
from safectl.safeguards.cost_critic import (
    ChanceBound,
    CostCritic,
    PreparedCritic,
    RowCritic,
    SafetyForm,
    ScoredCritic,
    Slope,
    epsilon_schedule,
)
from safectl.safeguards.fallback import Brake, Fallback, Hold
from safectl.safeguards.fit_signal import (
    Calibration,
    FitOptions,
    FittedSignal,
    Transitions,
    calibrate,
    fit_affine_signal,
    train_step,
)
from safectl.safeguards.memory import Memory, Remembering
from safectl.safeguards.safety_layer import Least, SafetyLayer
from safectl.safeguards.stop import StopProfile, decide_stop, slowed
from safectl.safeguards.visit_limit import VisitLimit

__all__ = [
    "ACS",
    "ACSOptions",
    "Affine",
    "AffineSignalModel",
    "BarrierQP",
    "Brake",
    "Calibration",
    "Chain",
    "ChanceBound",
    "Clip",
    "Correction",
    "CorrectionOptions",
    "CostCritic",
    "Explanation",
    "Fallback",
    "FitOptions",
    "FittedSignal",
    "Hold",
    "Least",
    "Memory",
    "PreparedCritic",
    "RateLimit",
    "Remembering",
    "RowCritic",
    "SafetyForm",
    "SafetyLayer",
    "ScoredCritic",
    "Slope",
    "StopProfile",
    "Transitions",
    "VisitLimit",
    "calibrate",
    "correct",
    "decide_stop",
    "epsilon_schedule",
    "fit_affine_signal",
    "slowed",
    "train_step",
]

"""Networks and what they learn: cost critics, denoisers of plans, forward-backward world models."""

from safectl.models.constrained_task import ConstrainedTask, constrain_task
from safectl.models.cost_targets import budget_labels, horizon_labels
from safectl.models.critic import LearnedCost, LearnedSafety, ScoreNetwork
from safectl.models.forward_backward import ForwardBackward
from safectl.models.learner import Learner
from safectl.models.networks import Actor, Backward, Forward, Sizes
from safectl.models.occupancy import (
    VisitBounds,
    VisitCritic,
    unsafe_embedding,
    visit_bounds,
    visit_within,
)
from safectl.models.tasks import (
    TaskQuality,
    infer_from_function,
    infer_from_goal,
    infer_from_rewards,
    sample_tasks,
    task_quality,
)
from safectl.models.temporal_unet import TemporalUnet
from safectl.models.temporal_value import TemporalValue
from safectl.models.update import METHODS, Batch, Draws, UpdateSettings, draw
from safectl.models.visit_scope import VisitScope, scope_of
from safectl.models.visit_table import VisitScores, VisitTable, calibrate_visits, score_visits

__all__ = [
    "METHODS",
    "Actor",
    "Backward",
    "Batch",
    "ConstrainedTask",
    "Draws",
    "Forward",
    "ForwardBackward",
    "LearnedCost",
    "LearnedSafety",
    "Learner",
    "ScoreNetwork",
    "Sizes",
    "TaskQuality",
    "TemporalUnet",
    "TemporalValue",
    "UpdateSettings",
    "VisitBounds",
    "VisitCritic",
    "VisitScope",
    "VisitScores",
    "VisitTable",
    "budget_labels",
    "calibrate_visits",
    "constrain_task",
    "draw",
    "horizon_labels",
    "infer_from_function",
    "infer_from_goal",
    "infer_from_rewards",
    "sample_tasks",
    "scope_of",
    "score_visits",
    "task_quality",
    "unsafe_embedding",
    "visit_bounds",
    "visit_within",
]

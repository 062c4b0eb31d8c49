"""Learned models of how a world goes on, asked for tasks after the training."""

from safectl.models.forward_backward import ForwardBackward
from safectl.models.learner import Learner
from safectl.models.networks import Actor, Backward, Forward, Sizes
from safectl.models.occupancy import (
    VisitBounds,
    VisitCritic,
    VisitTable,
    calibrate_visits,
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
from safectl.models.update import METHODS, Batch, Draws, UpdateSettings, draw

__all__ = [
    "METHODS",
    "Actor",
    "Backward",
    "Batch",
    "Draws",
    "Forward",
    "ForwardBackward",
    "Learner",
    "Sizes",
    "TaskQuality",
    "UpdateSettings",
    "VisitBounds",
    "VisitCritic",
    "VisitTable",
    "calibrate_visits",
    "draw",
    "infer_from_function",
    "infer_from_goal",
    "infer_from_rewards",
    "sample_tasks",
    "task_quality",
    "unsafe_embedding",
    "visit_bounds",
    "visit_within",
]

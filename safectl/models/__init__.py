"""Networks: what predicts costs and what they learn, denoisers and value functions of planners."""

from safectl.models.cost_targets import budget_labels, horizon_labels
from safectl.models.critic import LearnedCost, LearnedSafety, ScoreNetwork
from safectl.models.temporal_unet import TemporalUnet
from safectl.models.temporal_value import TemporalValue

__all__ = [
    "LearnedCost",
    "LearnedSafety",
    "ScoreNetwork",
    "TemporalUnet",
    "TemporalValue",
    "budget_labels",
    "horizon_labels",
]

"""Networks that predict costs, and what they learn."""

from safectl.models.cost_targets import budget_labels, horizon_labels
from safectl.models.critic import LearnedCost, LearnedSafety, ScoreNetwork

__all__ = ["LearnedCost", "LearnedSafety", "ScoreNetwork", "budget_labels", "horizon_labels"]

"""Networks that planners are given: temporal denoisers and value functions."""

from safectl.models.temporal_unet import TemporalUnet
from safectl.models.temporal_value import TemporalValue

__all__ = ["TemporalUnet", "TemporalValue"]

"""From signals to Gymnasium's spaces, and from an action to a command within them."""

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float, Float64

from safectl.errors import NonFiniteError, ShapeError
from safectl.spec import Signal


def box_of(signals: tuple[Signal, ...]) -> Box:
    """Build the float32 space of some signals."""
    low = np.array([signal.low for signal in signals], dtype=np.float32)
    high = np.array([signal.high for signal in signals], dtype=np.float32)
    return Box(low, high, dtype=np.float32)


def saturate(action: Float[np.ndarray, "..."], space: Box) -> Float64[np.ndarray, " nu"]:
    """Return the command that actuators make of an action: beyond a bound it saturates.

    Args:
        action: Shape (nu,).
        space: Of the actions.

    Raises:
        ShapeError: If the action has another shape.
        NonFiniteError: If the action holds NaN or infinity.
    """
    command = np.asarray(action, dtype=np.float64)
    if command.shape != space.shape:
        raise ShapeError("action", expected=space.shape, got=command.shape)
    wrong = int(np.count_nonzero(~np.isfinite(command)))
    if wrong:
        advice = "an actuator cannot follow it; check the policy or put a Guard around the world"
        raise NonFiniteError("action", count=wrong, size=command.size, advice=advice)
    return command.clip(space.low, space.high)

"""What a layer needs of the tracer that it is appended to."""

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError
from safectl.export.kinds.activation import SLOPED
from safectl.export.ops import Op


@runtime_checkable
class Recorder(Protocol):
    """Takes operations, constants and states; `Tracer` is the one there is."""

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """Store an array and return its name."""
        ...

    def op(self, op: Op) -> str:
        """Append an operation and return the name of its first output."""
        ...

    def state(self, name: str, initial: npt.ArrayLike) -> str:
        """Append a value that is read as the last step left it."""
        ...

    def keep(self, state: str, value: str) -> None:
        """Let a value replace a state after every step."""
        ...


def weights(
    tracer: Recorder, name: str, weight: npt.ArrayLike, bias: npt.ArrayLike | None
) -> tuple[str, str]:
    """Store the weight and the bias of a layer, zeros where it has none, output-first."""
    array = np.asarray(weight)
    start = np.zeros(len(array)) if bias is None else bias
    return tracer.constant(f"{name}_weight", array), tracer.constant(f"{name}_bias", start)


def slope(kind: str, alpha: float | None) -> float:
    """Return the parameter of an activation: zero for one that has none.

    Raises:
        RangeError: If `leaky_relu` comes without its slope.
    """
    if kind == "leaky_relu" and alpha is None:
        raise RangeError("alpha of leaky_relu", value=None, expected="the slope below zero")
    if kind not in SLOPED:
        return 0.0
    return 1.0 if alpha is None else float(np.float32(alpha))

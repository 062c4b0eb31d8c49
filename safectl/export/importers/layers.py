"""The layers of a neural graph: what every model file is reduced to before it becomes a program.

Shapes carry no batch axis. Images are channel-last (height, width, channels), sequences are
(steps, features). Arrays hold float32 or float64 numbers; the program rounds them to float32.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from safectl.export.ops import Quantisation

Array = npt.NDArray[np.floating]
Index = npt.NDArray[np.intp]
Shape = tuple[int, ...]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
"""Zeros before and after, along the height and along the width."""

UNPADDED: Padding = ((0, 0), (0, 0))


@dataclass(frozen=True, slots=True)
class Activation:
    """One function for every entry, by the name that `Tracer.activation` knows.

    Attributes:
        kind: For example `relu`; `softmax` runs along the last axis.
        alpha: Slope of `leaky_relu`, factor of `elu`.
    """

    kind: str
    alpha: float | None = None


IDENTITY = Activation("none")


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """y = W x + b along the last axis: weight (out, in), bias (out,).

    In a quantised model the weights of output i are multiples of `step[i]`.
    """

    weight: Array
    bias: Array
    activation: Activation = IDENTITY
    step: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """Correlation with weight (out, kernel height, kernel width, in / groups) and bias (out,).

    In a quantised model the weights of output i are multiples of `step[i]`.
    """

    weight: Array
    bias: Array
    stride: Pair = (1, 1)
    padding: Padding = UNPADDED
    dilation: Pair = (1, 1)
    groups: int = 1
    activation: Activation = IDENTITY
    step: Array | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Largest or mean entry of every window; whether cells of the padding count as zeros."""

    kind: Literal["max", "average"]
    window: Pair
    stride: Pair
    padding: Padding = UNPADDED
    count_padding: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """y = gain x + shift per channel, shapes (channels,), or with one number each, shapes (1,)."""

    gain: Array
    shift: Array


@dataclass(frozen=True, slots=True, eq=False)
class LayerNorm:
    """Normalise along the last axis, then gain and shift of shape (features,)."""

    gain: Array
    shift: Array
    epsilon: float


@dataclass(frozen=True, slots=True)
class Clip:
    """Limit every entry to low ... high, one number each."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rounded:
    """The nearest number that integers of this form stand for, within their range."""

    form: Quantisation


@dataclass(frozen=True, slots=True, eq=False)
class Recurrent:
    """A recurrent layer over (steps, features), with the gate orders of Keras.

    Attributes:
        cell: `lstm` has gates i, f, g, o; `gru` has z, r, h.
        kernel: Shape (features, gates * units).
        recurrent: Shape (units, gates * units).
        bias: Shape (gates * units,); (2, 3 * units) for a GRU with `reset_after`.
        return_sequences: Whether every step leaves, shape (steps, units), or the last, (units,).
        stateful: Whether the state lives on until the next call; else it starts at zero.
        reset_after: For a GRU: whether the reset gate acts behind the recurrent product.
        activation: Of the candidate (and of the cell of an LSTM).
        recurrent_activation: Of the gates.
        alpha: Slope of `leaky_relu` or scale of `elu`, where one of the two is such.
        cell_limit: For an LSTM: largest magnitude of an entry of the cell, None for no limit.
    """

    cell: Literal["simple_rnn", "gru", "lstm"]
    kernel: Array
    recurrent: Array
    bias: Array
    return_sequences: bool
    stateful: bool = False
    reset_after: bool = False
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    alpha: float = 0.0
    cell_limit: float | None = None

    @property
    def units(self) -> int:
        """Size of the state."""
        return len(self.recurrent)


@dataclass(frozen=True, slots=True)
class Combine:
    """Two or more inputs of one shape, added or multiplied entry by entry."""

    kind: Literal["add", "multiply"]


@dataclass(frozen=True, slots=True)
class Join:
    """The inputs joined along an axis, counted from the start; the other sizes agree."""

    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Entries of the flattened input: y[i] = x[index[i]]. Costs nothing where a layer absorbs it.

    Reshaping, transposing, slicing, reversing and repeating are all views.
    """

    index: Index


Layer = (
    Dense
    | Convolution
    | Pool
    | Affine
    | LayerNorm
    | Activation
    | Clip
    | Rounded
    | Recurrent
    | Combine
    | Join
    | View
)

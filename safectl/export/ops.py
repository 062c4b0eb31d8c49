"""One operation of a `Program`: its kind, the values and constants it names, and its attributes.

Every value is a flat vector of one number format: images channel-last (height, width, channels),
sequences are (steps, features). What a kind of operation means is in `export/kinds/`.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError

Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]
"""An array of one of `NUMBER_FORMATS`; `Array` is the float32 one."""

NUMBER_FORMATS = ("float32", "int8", "int16", "int32")

Shape = tuple[int, ...]
Pair = tuple[int, int]


class Value(NamedTuple):
    """Number of entries and number format of a value."""

    size: int
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel slides over an image.

    Attributes:
        shape: Height, width and channels of the input.
        size: Height and width of the kernel.
        stride: Rows and columns from one window to the next.
        padding: ((top, bottom), (left, right)): rows and columns that lie outside the image.
        dilation: Rows and columns from one tap of the kernel to the next.
        groups: Number of channel groups that do not see each other.
        count_padding: For an average: whether taps outside the image count.
    """

    shape: tuple[int, int, int]
    size: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    count_padding: bool = False

    def __post_init__(self) -> None:
        positive = (*self.shape, *self.size, *self.stride, *self.dilation, self.groups)
        if min(positive) < 1 or min(min(pair) for pair in self.padding) < 0:
            raise RangeError("window", value=self, expected="sizes of one or more, padding >= 0")
        if self.shape[2] % self.groups:
            raise RangeError("groups", value=self.groups, expected=f"a divisor of {self.shape[2]}")
        if min(self.output) < 1:
            raise RangeError("window", value=self, expected="a kernel that fits the padded image")

    @property
    def output(self) -> Pair:
        """Height and width of the result."""
        counts = [
            (self.shape[axis] + sum(self.padding[axis]) - self.dilation[axis] * (size - 1) - 1)
            // self.stride[axis]
            + 1
            for axis, size in enumerate(self.size)
        ]
        return counts[0], counts[1]

    @property
    def pixels(self) -> int:
        """Number of windows."""
        return self.output[0] * self.output[1]

    @property
    def taps(self) -> int:
        """Number of entries that one window of one group reads."""
        return self.size[0] * self.size[1] * self.shape[2] // self.groups


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How a recurrent layer runs over a sequence.

    Attributes:
        steps: Length of the sequence that enters in one step of the program.
        return_sequences: Whether the first output holds the state after every step of the sequence.
        reset_after: For `gru`: whether the reset gate acts after the recurrent product.
        recurrent_activation: Activation of the gates.
        cell_limit: For `lstm`: largest magnitude of an entry of the cell, None for no limit.
    """

    steps: int
    return_sequences: bool = False
    reset_after: bool = True
    recurrent_activation: str = "sigmoid"
    cell_limit: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise RangeError("steps", value=self.steps, expected="at least 1")
        if self.cell_limit is not None and not 0.0 < self.cell_limit < math.inf:
            raise RangeError("cell_limit", value=self.cell_limit, expected="positive and finite")


@dataclass(frozen=True, slots=True)
class Strides:
    """A rearrangement: entry (a, b, ...) of the result is entry start + a s_a + b s_b + ... .

    Attributes:
        start: First entry.
        sizes: Sizes of the result, at most four.
        steps: Distance in the input of neighbours along each axis.
    """

    start: int
    sizes: Shape
    steps: Shape

    def __post_init__(self) -> None:
        if not 1 <= len(self.sizes) <= 4 or len(self.sizes) != len(self.steps):
            raise RangeError("strides", value=self, expected="one to four sizes, a step each")
        if min(self.sizes) < 1 or min(self.ends) < 0:
            raise RangeError("strides", value=self, expected="sizes above and entries from zero")

    @property
    def ends(self) -> Pair:
        """Smallest and largest entry that is read."""
        ways = [(size - 1) * step for size, step in zip(self.sizes, self.steps, strict=True)]
        low, high = (sum(limit(0, way) for way in ways) for limit in (min, max))
        return self.start + low, self.start + high


@dataclass(frozen=True, slots=True)
class Horizon:
    """Sizes of neural generalised predictive control; symbols as in `planners/ngpc_problem.py`.

    Attributes:
        inputs: m.
        outputs: p.
        sensors: Entries of the sensor signals.
        input_lags: nd.
        output_lags: dd.
        first: N1.
        last: N2.
        control: Nu.
        iterations: Newton steps.
        has_curvature: Whether the network's second derivatives enter the Hessian.
        has_preview: Whether the reference has a row per sample of the cost.
        is_box: Whether the limits are a box without a barrier.
        activations: Activation of each layer; "gated" for a gated unit.
    """

    inputs: int
    outputs: int
    sensors: int
    input_lags: int
    output_lags: int
    first: int
    last: int
    control: int
    iterations: int
    has_curvature: bool
    has_preview: bool
    is_box: bool
    activations: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = (self.inputs, self.outputs, self.input_lags, self.output_lags, self.iterations)
        ordered = 1 <= self.first <= self.last and 1 <= self.control <= self.last
        if min(*counts, len(self.activations)) < 1 or self.sensors < 0 or not ordered:
            raise RangeError("horizon", value=self, expected="sizes and ordered samples above zero")

    @property
    def decisions(self) -> int:
        """Entries of the plan."""
        return self.control * self.inputs

    @property
    def pairs(self) -> int:
        """Second tangents."""
        return self.decisions * (self.decisions + 1) // 2 if self.has_curvature else 0

    @property
    def lagged(self) -> int:
        """Entries that the network reads before the sensors."""
        return self.input_lags * self.inputs + self.output_lags * self.outputs

    @property
    def past_inputs(self) -> int:
        """Applied inputs in the memory."""
        return max(self.input_lags - 1, 1)

    @property
    def observation_size(self) -> int:
        """Entries of the observation: measured outputs, sensors, reference."""
        rows = self.last - self.first + 1 if self.has_preview else 1
        return self.outputs + self.sensors + rows * self.outputs

    @property
    def memory_sizes(self) -> tuple[int, ...]:
        """Parts of the memory: inputs, outputs, plan, prediction, disturbance, whether started."""
        past = (self.output_lags - 1) * self.outputs
        inputs = self.past_inputs * self.inputs
        return inputs, past, self.decisions, self.outputs, self.outputs, 1

    @property
    def memory_size(self) -> int:
        """Entries of the memory."""
        return sum(self.memory_sizes)

    @property
    def layers_start(self) -> int:
        """Index of the first constant of the network."""
        return 5 if self.is_box else 7


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What the integers of a value stand for: (q - zero) * scale.

    Attributes:
        dtype: "int8" with any zero, or "int16" with zero 0.
        scale: Step between two integers, above zero, in float32.
        zero: Integer that stands for 0.0.
    """

    dtype: str
    scale: float
    zero: int

    def __post_init__(self) -> None:
        low, high = self.range
        if not low <= self.zero <= high or not 0.0 < self.scale < np.inf:
            raise RangeError("quantisation", value=self, expected="a scale above zero, zero inside")

    @property
    def range(self) -> Pair:
        """Smallest and largest integer."""
        if self.dtype not in ("int8", "int16"):
            raise RangeError("number format", value=self.dtype, expected="int8 or int16")
        limits = np.iinfo(self.dtype)
        return int(limits.min), int(limits.max)


@dataclass(frozen=True, slots=True)
class Integers:
    """How an integer layer sees its input and makes its output from 32-bit sums.

    Attributes:
        source: Number format of the input.
        padding: Integer of the input that stands for 0.0.
        result: Number format of the output; "float32" for sums times a scale per channel.
        left: Every sum is first multiplied by 2 to this power.
        rounds_twice: Whether the product is rounded before the shift and again after it, as the
            kernels of TensorFlow Lite do by default; `left` is zero then.
        zero: Added to the output.
        low: Smallest output: the activation relu begins at its zero.
        high: Largest output.
        window: Attributes of a convolution or a pool.
    """

    source: str
    padding: int
    result: str
    left: int = 0
    zero: int = 0
    low: int = 0
    high: int = 0
    window: Window | None = None
    rounds_twice: bool = False


@dataclass(frozen=True, slots=True)
class Loop:
    """How an iterative operation ends.

    Attributes:
        iterations: Bound of the loop.
        newton: For `correct`: whether steps are sized by the distance to the bound.
        aim: For `newton`: how far beyond the bound a step leads, so that rounding does not leave it
            short; in the unit of the critic.
    """

    iterations: int
    newton: bool = False
    aim: float = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise RangeError("iterations", value=self.iterations, expected="at least 1")


@dataclass(frozen=True, slots=True)
class ForwardGradient:
    """Two-point training in fixed point; numbers count 1/4096, losses their squares over 64.

    Attributes:
        is_tanh: Whether each layer ends in tanh; else it ends in its sums.
        exponent: Perturbation 2^exponent.
        shift: Least shift of a difference of losses on its way to an update.
        band: Sum of both losses up to which nothing is learned.
        clip: Difference of losses from which a sample is rejected.
    """

    is_tanh: tuple[bool, ...] = ()
    exponent: int = 6
    shift: int = 8
    band: int = 0
    clip: int = 1 << 20

    def __post_init__(self) -> None:
        is_small = 0 <= self.exponent <= 10 and 0 <= self.shift <= 24 and 0 <= self.band < 1 << 30
        if not is_small or not 0 < self.clip <= 1 << 30:
            expected = "exponent to 10, shift to 24, band and clip to 2^30"
            raise RangeError("forward gradient", value=self, expected=expected)


Detail = Window | Recurrence | Strides | Horizon | ForwardGradient | Quantisation | Integers | Loop


@dataclass(frozen=True, slots=True)
class Op:
    """One operation in single-assignment form.

    Attributes:
        kind: A key of `KINDS`.
        inputs: Names of the values it reads.
        outputs: Names of the values it defines.
        constants: Names of the constants it reads, in the order of its kind.
        activation: What is applied to every output, for kinds that allow it.
        start: For `slice`: first entry.
        stop: For `slice`: one past the last entry.
        rows: Number of equal parts that the operation treats one after the other.
        alpha: Slope of `leaky_relu`, scale of `elu`.
        detail: Attributes of windows, recurrent layers and rearrangements.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: tuple[str, ...] = ()
    activation: str = "none"
    start: int = 0
    stop: int = 0
    rows: int = 1
    alpha: float = 0.0
    detail: Detail | None = None

"""From the float weights of one layer to the integers of its twin."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from safectl.errors import RangeError
from safectl.export.ops import AnyArray, Quantisation

Numbers = npt.NDArray[np.float64]
_WEIGHT_LIMIT = 127
_SUM_LIMIT = 2**31 - 1
_LARGEST_LEFT = 8
"""Sums are multiplied by at most 2^8 before the multiplier."""


class IntegerWeights(NamedTuple):
    """Weights (out, ...) in 8 bits, bias in 32 bits, and what one unit of a sum is worth.

    Attributes:
        weight: int8.
        bias: int32; it takes in the zero of the input.
        scale: Per channel, float64.
        bound: Largest magnitude of any sum.
    """

    weight: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    scale: Numbers
    bound: int


class Requantisation(NamedTuple):
    """Multiplier and shift per channel, and the common left shift."""

    multiplier: npt.NDArray[np.int32]
    shift: npt.NDArray[np.int8]
    left: int


def integer_weights(weight: AnyArray, bias: AnyArray, source: Quantisation) -> IntegerWeights:
    """Round the weights of every output channel with a scale of its own.

    The scale makes the largest weight 127, or less where the bias or the sum of products could
    leave 32 bits: then no sum, not even a partial one, overflows for any input.

    Raises:
        RangeError: If a layer has so many inputs that no scale leaves room.
    """
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    largest = np.abs(flat).max(axis=1)
    reach = max(-source.range[0], source.range[1])
    reach += abs(source.zero)
    sums = np.abs(flat).sum(axis=1) * reach + np.abs(bias) / source.scale
    room = _SUM_LIMIT - reach * (0.5 * flat.shape[1] + 1.0)  # less what rounding the weights adds
    if room <= 0.0:
        raise RangeError("inputs of a layer", value=flat.shape[1], expected="fewer: 32-bit sums")
    step = np.maximum(largest / _WEIGHT_LIMIT, sums / room)
    step = np.where(step > 0.0, step, 1.0)
    integers = np.rint(flat / step[:, None])
    scale = step * source.scale
    start = np.rint(bias / scale) - source.zero * integers.sum(axis=1)
    bounds = np.abs(start) + reach * np.abs(integers).sum(axis=1)
    assert bounds.max() <= _SUM_LIMIT  # by the choice of the step
    return IntegerWeights(
        integers.astype(np.int8).reshape(weight.shape),
        start.astype(np.int32),
        scale,
        int(bounds.max()),
    )


def requantisation(weights: IntegerWeights, result: Quantisation) -> Requantisation:
    """Return multiplier and shift with sum * scale = multiplier 2^left / 2^(33 + shift) * step.

    Raises:
        RangeError: If a channel would have to be magnified beyond what its sums leave room for.
    """
    ratios = weights.scale / result.scale
    parts = [math.frexp(ratio) for ratio in ratios]
    exponents = [exponent for _, exponent in parts]
    left = max(0, max(exponents) + 2)  # shift >= 0 below
    room = _SUM_LIMIT // max(1, weights.bound)
    if left > _LARGEST_LEFT or 2**left > room:
        raise RangeError(
            "scale of an output",
            value=result.scale,
            expected="a range of the calibration that is not tiny beside the weights",
        )
    multiplier, shift = [], []
    for fraction, exponent in parts:
        whole, up = round(fraction * 2**31), exponent
        if whole == 2**31:
            whole, up = whole // 2, exponent + 1
        right = left - up - 2  # ratio = whole 2^(up - 31)
        extra = max(0, right - 31)  # a channel that is worth next to nothing
        multiplier.append(whole >> extra)
        shift.append(right - extra)
    return Requantisation(np.array(multiplier, np.int32), np.array(shift, np.int8), left)


def twice_rounded(weights: IntegerWeights, result: Quantisation) -> Requantisation | None:
    """Return multiplier and shift with sum * scale = multiplier / 2^(31 + shift) * step.

    These are what TensorFlow Lite finds (`QuantizeMultiplier`), but for channels that it shifts to
    the left: a layer with such a channel has none, nor one whose sums could fill 31 bits.
    """
    parts = [math.frexp(ratio) for ratio in weights.scale / result.scale]
    pairs = [(round(fraction * 2**31), -exponent) for fraction, exponent in parts]
    pairs = [
        (whole // 2, shift - 1) if whole == 2**31 else (whole, shift) for whole, shift in pairs
    ]
    pairs = [(whole, shift) if shift <= 31 else (0, 0) for whole, shift in pairs]
    if min(shift for _, shift in pairs) < 0 or weights.bound > _SUM_LIMIT // 2:
        return None
    multiplier, shifts = zip(*pairs, strict=True)
    return Requantisation(np.array(multiplier, np.int32), np.array(shifts, np.int8), 0)


def quantisation(low: float, high: float, bits: int) -> Quantisation:
    """Return integers for the range [low, high], widened to hold zero: asymmetric in 8 bits."""
    low, high = min(low, 0.0), max(high, 0.0)
    if bits == 16:
        scale = max(-low, high) / 32767 or 1.0
        return Quantisation("int16", float(np.float32(scale)), 0)
    scale = float(np.float32((high - low) / 255 or 1.0))
    return Quantisation("int8", scale, int(np.clip(round(-128 - low / scale), -128, 127)))

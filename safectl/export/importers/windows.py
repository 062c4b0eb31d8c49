"""Windows that several formats spell out: padding with zeros, and reductions of whole axes."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from safectl.export.importers.graph import Draft
from safectl.export.importers.layers import Convolution, Padding, Pool


def pad(draft: Draft, image: str, padding: Padding, name: str) -> str:
    """Append zeros around an image: a convolution with one cell of weight one and with padding."""
    channels = draft.shape(image)[2]
    ones, none = np.ones((channels, 1, 1, 1)), np.zeros(channels)
    return draft.add(Convolution(ones, none, padding=padding, groups=channels), name, image)


def reduce(
    draft: Draft, value: str, axes: Sequence[int], kind: Literal["max", "average"], name: str
) -> str:
    """Append the largest or mean entry along axes, which become the width of an image.

    The others, in their order, are its channels.
    """
    shape = draft.shape(value)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    size = math.prod(shape[axis] for axis in axes)
    image = draft.view(
        value, name, lambda index: index.transpose(*axes, *kept).reshape(1, size, -1)
    )
    return draft.add(Pool(kind, (1, size), (1, 1)), name, image)

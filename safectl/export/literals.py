"""Constants as C text that reads back as the same bits."""

import numpy as np

from safectl.export.ops import Array

_LOWEST = np.iinfo(np.int32).min


def float_literal(value: np.float32) -> str:
    """Write nine significant digits, which tell any two float32 apart, and the suffix f."""
    text = f"{float(value):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def literal(value: np.generic) -> str:
    """Write a number of any format; the lowest int32 has no literal of its own in C."""
    if isinstance(value, np.float32):
        return float_literal(value)
    return f"{_LOWEST + 1} - 1" if value == _LOWEST else str(value)


def float_rows(values: Array) -> list[str]:
    """Write each row of a (rows, columns) array as comma-separated literals."""
    return [", ".join(float_literal(value) for value in row) for row in values]

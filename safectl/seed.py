"""One seed in, one named source of randomness per purpose out.

Two purposes never share a stream, so adding a consumer does not move the others.
"""

import hashlib
import operator

import numpy as np
import torch

from safectl.errors import RangeError


def derive(seed: int, purpose: str) -> int:
    """Return a 63-bit seed for one purpose, e.g. `derive(0, "evaluation")`.

    Raises:
        RangeError: If the seed is negative or no integer.
    """
    try:
        number = operator.index(seed)  # a NaN or 1.5 is no seed, though it compares and prints
    except TypeError as error:
        raise RangeError("seed", value=seed, expected="an integer >= 0") from error
    if number < 0:
        raise RangeError("seed", value=seed, expected="an integer >= 0")
    digest = hashlib.sha256(f"{number}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def torch_generator(seed: int, purpose: str, device: str = "cpu") -> torch.Generator:
    """Return a torch generator for one purpose on one device."""
    generator = torch.Generator(device)
    generator.manual_seed(derive(seed, purpose))
    return generator


def numpy_generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a NumPy generator for one purpose."""
    return np.random.default_rng(derive(seed, purpose))

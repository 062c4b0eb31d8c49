"""A fitted `SafetyLayer` as the constraint of a program."""

import math

import numpy as np
import torch

from safectl.errors import UnsupportedLayer
from safectl.export.assemble import AffineSignal, Network
from safectl.export.normaliser import Normaliser
from safectl.safeguards.linear import BACKOFF_ULPS
from safectl.safeguards.safety_layer import SafetyLayer


def signal_of(layer: SafetyLayer, *, now: int | None = None) -> AffineSignal:
    """Take the model, limit, margin and rate of a safety layer with one signal.

    A program built from it decides as `SafetyLayer.filter` does, with the `Least` fallback.

    Args:
        layer: The safeguard as trained.
        now: Index of the entry of the observation that is the present signal; needed if the layer
            has a rate below one.

    Raises:
        UnsupportedLayer: If it has several signals or another fallback than `Least`.
        RangeError: If `now` is missing or not needed.
    """
    model = layer.model
    if model.m != 1 or layer.fallback.name != "least":
        raise UnsupportedLayer(
            f"SafetyLayer with {model.m} signals and fallback {layer.fallback.name!r}",
            supported=("one signal with fallback 'least'",),
            advice="Use guarded_program, which projects on several constraints.",
        )
    return AffineSignal(
        network=signal_network(layer),
        limit=float(layer.limit[0]),
        margin=float(layer.calibration.margin[0]),
        rate=layer.rate,
        now=now,
        backoff=BACKOFF_ULPS * torch.finfo(torch.float32).eps,
    )


def signal_network(layer: SafetyLayer) -> Network:
    """Return the model of a safety layer: per signal its offset c, then its gain g."""
    model = layer.model
    deviation = model.signal_deviation.double().tolist()
    mean = model.signal_mean.double().tolist()
    return Network(
        layers=model.layers,
        normaliser=Normaliser(
            model.mean.cpu().numpy().astype(np.float64),
            model.deviation.cpu().numpy().astype(np.float64) ** 2,
            epsilon=0.0,
            clip=math.inf,
        ),
        gain=[number for number in deviation for _ in range(1 + model.nu)],
        shift=[entry for number in mean for entry in (number, *[0.0] * model.nu)],
    )

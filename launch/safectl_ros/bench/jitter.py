"""The picture of the hop benchmark: latencies by way, and how regular the outputs are."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from safectl_ros.bench.hop import RATES_HZ, WAYS, Hops

_GAP_S = 0.06
"""Between blocks nothing is sent; longer gaps than this are left out."""


def draw(hops: Hops, path: Path) -> None:
    """Write a PNG of what `hop.measure` has measured."""
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for way in WAYS:
        rows = np.sort(np.concatenate([hops.latencies[way, rate] for rate in RATES_HZ]))
        shares = np.arange(1, len(rows) + 1) / len(rows)
        left.plot(1e3 * rows, 100.0 * (1.0 - shares) + 0.1, label=way)
        gaps = np.diff(hops.outputs[way])
        right.hist(1e3 * gaps[gaps < _GAP_S], bins=120, histtype="step", label=way)
    left.set(xlabel="there and back [ms]", ylabel="slower than this [%]", yscale="log")
    right.set(xlabel="between two outputs [ms]", ylabel="outputs", yscale="log")
    left.legend()
    figure.savefig(path, dpi=110)

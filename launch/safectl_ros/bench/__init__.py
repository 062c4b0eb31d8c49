"""The benchmarks of the ROS layer; reading the list needs no ROS, running one does."""

import importlib
from collections.abc import Callable

from safectl_agents.bench.benchmark import Benchmark, Measurement


def _lazily(module: str, function: str) -> Callable[[], Measurement]:
    """Return a measurement whose module, and with it ROS, is imported when it runs."""

    def measure() -> Measurement:
        measurement: Measurement = getattr(importlib.import_module(module), function)()
        return measurement

    return measure


BENCHMARKS = (
    Benchmark(
        name="ros.lockstep_rate",
        summary="steps per second of a Gymnasium environment behind a simulator node",
        unit="steps/s",
        baseline="200 steps/s; two processes, DDS over UDP on the loopback device",
        target=200.0,
        better="higher",
        quick=True,
        measure=_lazily("safectl_ros.bench.lockstep", "rate"),
    ),
    Benchmark(
        name="ros.soak",
        summary="promises broken in 30 minutes at 50 Hz: memory + 5 MB, gap 100 ms, leftover files",
        unit="1",
        baseline="none; growth of each node, longest gap and number of outputs are in the details",
        target=0.0,
        better="lower",
        quick=False,
        measure=_lazily("safectl_ros.bench.soak", "soak"),
    ),
)
"""All of them, by rising effort."""

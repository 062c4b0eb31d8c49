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
        name="ros.fuzz_unsafe",
        summary="unsafe outputs of the guard in 10,000 random commands and observations",
        unit="outputs",
        baseline="zero; judged by the messages alone",
        target=0.0,
        better="lower",
        quick=True,
        measure=_lazily("safectl_ros.bench.fuzz", "unsafe_outputs"),
    ),
    Benchmark(
        name="ros.chain_p99",
        summary="99th percentile from observation to safe command, one busy process per core",
        unit="ms",
        baseline="50 ms; simulator, policy and guard as processes",
        target=50.0,
        better="lower",
        quick=True,
        measure=_lazily("safectl_ros.bench.chain", "p99"),
    ),
    Benchmark(
        name="ros.guard_hop_p99",
        summary="99th percentile there and back through the guard at 50 and 100 Hz, the worst",
        unit="ms",
        baseline="5 ms; limits, and a barrier that corrects every fourth command",
        target=5.0,
        better="lower",
        quick=False,
        measure=_lazily("safectl_ros.bench.hop", "p99"),
    ),
    Benchmark(
        name="ros.guard_hop_ratio",
        summary="99th percentile there and back through the guard over that of a relay, the worst",
        unit="x",
        baseline="a relay node in the same run",
        target=1.5,
        better="lower",
        quick=False,
        measure=_lazily("safectl_ros.bench.hop", "ratio"),
    ),
    Benchmark(
        name="ros.fault_stop_time",
        summary="SIGKILL of the policy to the first zero of the guard, the worst of 10",
        unit="ms",
        baseline="timeout of 200 ms and two periods of 20 ms",
        target=240.0,
        better="lower",
        quick=False,
        measure=_lazily("safectl_ros.bench.fault", "stop_time"),
    ),
    Benchmark(
        name="ros.soak",
        summary="promises broken in 30 minutes at 50 Hz: memory + 5 MB, gap 100 ms, leftover files",
        unit="1",
        baseline="none broken; simulator, guard and recorder, shared memory",
        target=0.0,
        better="lower",
        quick=False,
        measure=_lazily("safectl_ros.bench.soak", "soak"),
    ),
)
"""All of them, by rising effort."""

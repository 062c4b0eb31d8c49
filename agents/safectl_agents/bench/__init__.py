"""Every figure that this project claims, as a named benchmark."""

from safectl_agents.bench.benchmark import Benchmark
from safectl_agents.bench.foundation import FOUNDATION

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in FOUNDATION}
"""All benchmarks by name."""

__all__ = ["BENCHMARKS", "Benchmark"]

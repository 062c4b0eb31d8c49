"""Every figure that this project claims, as a named benchmark; `catalogue` lists them."""

from safectl_agents.bench.benchmark import Benchmark, Measurement

__all__ = ["Benchmark", "Measurement"]

"""Write `docs/figures.md`: every benchmark with its target and its last recorded value."""

from itertools import groupby
from pathlib import Path
from typing import Any

from safectl_agents.bench.benchmark import Benchmark, last_result, results_folder
from safectl_agents.bench.catalogue import BENCHMARKS

PAGE = Path(__file__).parents[2] / "docs" / "figures.md"
GROUPS = {
    "foundation": "Foundation",
    "mcu": "Microcontrollers",
    "ros": "ROS 2",
    "acs": "Adaptive chance-constraint safeguards",
    "safediffuser": "Diffusion planners",
    "fb": "Forward-backward world models",
}
HEAD = "| Benchmark | What | Against | Target | Measured |\n|---|---|---|---|---|\n"
INTRODUCTION = """# Figures

Every figure that safectl claims is a benchmark: `safectl bench NAME` runs one and
`safectl bench --list` lists them. Machine, seeds, sizes and date of each are in
`tests/benchmarks/results/`. `make figures` writes this page.
"""


def page() -> str:
    """Return the page: one table per group, in the order of the catalogue."""
    parts = [INTRODUCTION]
    for group, benchmarks in groupby(BENCHMARKS.values(), lambda each: each.name.split(".")[0]):
        rows = "".join(row(benchmark) + "\n" for benchmark in benchmarks)
        parts.append(f"## {GROUPS[group]}\n\n{HEAD}{rows}")
    return "\n".join(parts)


def row(benchmark: Benchmark) -> str:
    """Return the line of one benchmark."""
    sign = ">=" if benchmark.better == "higher" else "<="
    times = "x" if benchmark.unit == "x" else ""
    return (
        f"| `{benchmark.name}` | {benchmark.summary} | {benchmark.baseline} | "
        f"{sign} {benchmark.target:g}{times} | {measured(benchmark)} |"
    )


def measured(benchmark: Benchmark) -> str:
    """Return the last value with its unit, and whether it misses its target."""
    result: dict[str, Any] | None = last_result(benchmark.name, results_folder())
    if result is None or result["value"] is None:
        return "**not measured**" if result is None else "not a number, **not met**"
    unit = {"1": "", "x": "x"}.get(benchmark.unit, f" {benchmark.unit}")
    value = f"{result['value']:.3g}" if result["value"] < 1000 else f"{result['value']:,.0f}"
    return f"{value}{unit}{'' if benchmark.met(float(result['value'])) else ', **not met**'}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""The figures in the README are those of the recorded results, within the spread of a machine."""

import re
from pathlib import Path

import pytest

from safectl_agents.bench.benchmark import Benchmark, last_result, results_folder
from safectl_agents.bench.catalogue import BENCHMARKS

README = Path(__file__).parents[2] / "README.md"
SPREAD = 3.0
"""Two runs of a timing on one machine may differ by this factor; a stale figure differs by more."""


def row(benchmark: Benchmark) -> str:
    result = last_result(benchmark.name, results_folder())
    assert result is not None, f"run: safectl bench {benchmark.name}"
    sign = ">=" if benchmark.better == "higher" else "<="
    unit = "" if benchmark.unit in ("1", "x") else f" {benchmark.unit}"
    times = "x" if benchmark.unit == "x" else ""
    measured = f"{result['value']:.3g}" if result["value"] < 1000 else f"{result['value']:,.0f}"
    return (
        f"| `{benchmark.name.split('.')[1]}` | {benchmark.summary} | {benchmark.baseline} | "
        f"{sign} {benchmark.target:g}{times} | {measured}{times}{unit}"
        f"{'' if result['met'] else ', **not met**'} |"
    )


def figure(line: str) -> float:
    return float(re.sub(r"[^0-9.e-]", "", line.split("|")[-2].split(" ")[1].rstrip("x,")) or "nan")


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_the_readme_shows_the_recorded_figure(benchmark):
    expected = row(benchmark)
    start = expected.rpartition("|")[0].rpartition("|")[0]
    shown = [line for line in README.read_text().splitlines() if line.startswith(start)]
    assert len(shown) == 1, f"the README should hold:\n{expected}"
    assert ("not met" in shown[0]) == ("not met" in expected)
    ours, recorded = figure(shown[0]), figure(expected)
    assert recorded / SPREAD <= ours <= recorded * SPREAD, f"the README should hold:\n{expected}"

"""The figures in the README are the recorded results of the benchmarks."""

from pathlib import Path

from safectl_agents.bench import BENCHMARKS
from safectl_agents.bench.benchmark import last_result, results_folder

README = Path(__file__).parents[2] / "README.md"


def table() -> str:
    lines = ["| Benchmark | What | Against | Target | Measured |", "|---|---|---|---|---|"]
    for benchmark in BENCHMARKS.values():
        result = last_result(benchmark.name, results_folder())
        assert result is not None, f"run: safectl bench {benchmark.name}"
        sign = ">=" if benchmark.better == "higher" else "<="
        unit = "" if benchmark.unit in ("1", "x") else f" {benchmark.unit}"
        times = "x" if benchmark.unit == "x" else ""
        measured = f"{result['value']:.3g}" if result["value"] < 1000 else f"{result['value']:,.0f}"
        lines.append(
            f"| `{benchmark.name.split('.')[1]}` | {benchmark.summary} | {benchmark.baseline} | "
            f"{sign} {benchmark.target:g}{times} | {measured}{times}{unit}"
            f"{'' if result['met'] else ', **not met**'} |"
        )
    return "\n".join(lines)


def test_the_readme_shows_the_recorded_figures():
    assert table() in README.read_text(), f"the README should hold:\n{table()}"

"""`safectl bench`: list or run the named benchmarks."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from safectl.errors import UnknownNameError
from safectl_agents.bench.benchmark import (
    Benchmark,
    last_result,
    results_folder,
    run_benchmark,
    save_result,
)
from safectl_agents.bench.catalogue import BENCHMARKS


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """Which benchmarks, and how to print them."""

    name: str = ""
    """Benchmark, or a group with a final dot such as "foundation."."""
    list: bool = False
    """List names, targets and last recorded results; run nothing."""
    quick: bool = False
    """Run every benchmark that takes under a minute."""
    json: bool = False
    """Print JSON."""


DEFAULTS = BenchSettings()


def run(settings: BenchSettings) -> int:
    """Return 0 where every benchmark that ran met its target, 3 where one did not."""
    if settings.list or not (settings.name or settings.quick):
        _list(as_json=settings.json)
        return 0
    chosen = _choose(settings)
    results = []
    for benchmark in chosen:
        if not settings.json:
            sys.stderr.write(f"{benchmark.name}: {benchmark.summary} ...\n")
        result = run_benchmark(benchmark)
        save_result(result, results_folder())
        results.append(result)
        if not settings.json:
            Console().print(_line(result), highlight=False)
    if settings.json:
        sys.stdout.write(json.dumps(results[0] if len(results) == 1 else results, indent=2) + "\n")
    return 0 if all(result["met"] for result in results) else 3


def _choose(settings: BenchSettings) -> list[Benchmark]:
    if settings.name in BENCHMARKS:
        return [BENCHMARKS[settings.name]]
    chosen = [
        benchmark
        for benchmark in BENCHMARKS.values()
        if benchmark.name.startswith(settings.name) and (benchmark.quick or not settings.quick)
    ]
    if not chosen or (settings.name and not settings.name.endswith(".")):
        raise UnknownNameError("benchmark", settings.name, known=list(BENCHMARKS))
    return chosen


def _list(*, as_json: bool) -> None:
    folder = results_folder()
    rows = [(benchmark, last_result(benchmark.name, folder)) for benchmark in BENCHMARKS.values()]
    if as_json:
        listed = [
            {
                "name": benchmark.name,
                "summary": benchmark.summary,
                "unit": benchmark.unit,
                "baseline": benchmark.baseline,
                "target": benchmark.target,
                "better": benchmark.better,
                "quick": benchmark.quick,
                "last": last,
            }
            for benchmark, last in rows
        ]
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
        return
    table = Table("benchmark", "target", "last", "met", "what")
    for benchmark, last in rows:
        sign = ">=" if benchmark.better == "higher" else "<="
        table.add_row(
            benchmark.name,
            f"{sign} {benchmark.target:g} {benchmark.unit}",
            _value(last),
            ("yes" if last["met"] else "NO") if last else "-",
            f"{benchmark.summary} (against {benchmark.baseline})",
        )
    Console().print(table)


def _line(result: dict[str, Any]) -> str:
    sign = ">=" if result["better"] == "higher" else "<="
    word = "met" if result["met"] else "NOT MET"
    return (
        f"  {_value(result)} {result['unit']} (target {sign} {result['target']:g}, {word}) "
        f"in {result['seconds']} s"
    )


def _value(result: dict[str, Any] | None) -> str:
    if result is None:
        return "-"
    return "not a number" if result["value"] is None else f"{result['value']:.4g}"

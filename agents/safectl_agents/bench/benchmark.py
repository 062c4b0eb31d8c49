"""A named benchmark: one claimed figure, how it is measured, and what it was last time."""

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safectl.errors import FileFormatError, RangeError
from safectl.files import read_json, write_json

NOTHING_DRAWN = "nothing is drawn at random"
"""What a result says in place of a seed where it has none."""

_CHECKOUT_RESULTS = Path(__file__).parents[3] / "tests" / "benchmarks" / "results"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run of a benchmark found.

    Attributes:
        value: The figure that is compared with the target.
        ours: Our own side of a ratio, None where the value is no ratio.
        theirs: The baseline's side, in the same unit as `ours`.
        seconds: How long the measurement took where that is not the time of the call [s].
        details: `seed` or `seeds`, sizes, spread and what else a reader needs, JSON values only.
    """

    value: float
    ours: float | None = None
    theirs: float | None = None
    seconds: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One claimed figure.

    Attributes:
        name: Group and figure, e.g. "foundation.cbf_batch_vs_cvxpy".
        summary: What is measured, one sentence.
        unit: Unit of the value; "x" for a ratio to the baseline.
        baseline: What it is compared with in the same run, or the source of the target.
        target: Bound that the value must meet.
        measure: Runs it.
        better: Whether more or less is better.
        quick: Whether it takes under a minute.
    """

    name: str
    summary: str
    unit: str
    baseline: str
    target: float
    measure: Callable[[], Measurement]
    better: Literal["higher", "lower"] = "lower"
    quick: bool = True

    def __post_init__(self) -> None:
        if "." not in self.name:
            raise RangeError("benchmark name", value=self.name, expected="group.figure")

    def met(self, value: float) -> bool:
        """Return whether a value meets the target; NaN does not."""
        return value >= self.target if self.better == "higher" else value <= self.target


def run_benchmark(benchmark: Benchmark) -> dict[str, Any]:
    """Run one benchmark and return its result as JSON values."""
    started = time.monotonic()
    measurement = benchmark.measure()
    ratio = None
    if measurement.ours and measurement.theirs:
        quotient = measurement.theirs / measurement.ours
        ratio = measurement.value if benchmark.unit == "x" else quotient
    return {
        "name": benchmark.name,
        "value": _finite(measurement.value),
        "unit": benchmark.unit,
        "baseline": benchmark.baseline,
        "ratio": _finite(ratio),
        "target": benchmark.target,
        "better": benchmark.better,
        "met": math.isfinite(measurement.value) and benchmark.met(measurement.value),
        "seconds": round(measurement.seconds or time.monotonic() - started, 2),
        "machine": describe_machine(),
        "command": f"safectl bench {benchmark.name} --json",
        "ours": _finite(measurement.ours),
        "theirs": _finite(measurement.theirs),
        "details": dict(measurement.details),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no NaN or infinity; such a value is None and never meets a target."""
    return value if value is not None and math.isfinite(value) else None


def results_folder() -> Path:
    """Return where results are kept: with the tests of a checkout, else `benchmarks/` here."""
    return _CHECKOUT_RESULTS if _CHECKOUT_RESULTS.is_dir() else Path("benchmarks")


def save_result(result: Mapping[str, Any], folder: Path) -> Path:
    """Write one result file named after the benchmark.

    Raises:
        StorageError: If it cannot be written; the last result stays.
    """
    path = folder / f"{result['name']}.json"
    write_json(path, dict(result))
    return path


def last_result(name: str, folder: Path) -> dict[str, Any] | None:
    """Return the last recorded result, None where there is none.

    Raises:
        FileFormatError: If the file is damaged.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    result = read_json(path, advice=f"delete it and run: safectl bench {name}")
    if "value" not in result or "met" not in result:
        raise FileFormatError(path, "is no result", f"delete it and run: safectl bench {name}")
    return result


def describe_machine() -> str:
    """Return processor, cores, memory and system in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = platform.processor() or platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

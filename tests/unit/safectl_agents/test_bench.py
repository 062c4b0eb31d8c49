"""Benchmarks: results are kept, targets are compared, damage is reported."""

import dataclasses
import json
import math

import pytest

from safectl.errors import FileFormatError, RangeError
from safectl_agents.bench.accuracy import projection_error
from safectl_agents.bench.acs_training import TRAINING
from safectl_agents.bench.benchmark import (
    Benchmark,
    Measurement,
    describe_machine,
    last_result,
    results_folder,
    run_benchmark,
    save_result,
)
from safectl_agents.bench.catalogue import BENCHMARKS
from safectl_agents.bench.fb_training import RECORDED
from safectl_agents.bench.programs import mlp_instructions
from safectl_agents.bench.timing import time_calls

FIELDS = {"name", "value", "unit", "baseline", "ratio", "target", "met", "seconds", "machine"}


def benchmark(value, *, better="higher", target=10.0, unit="x"):
    return Benchmark(
        name="test.figure",
        summary="a figure",
        unit=unit,
        baseline="another",
        target=target,
        better=better,
        quick=True,
        measure=lambda: Measurement(value, ours=1.0, theirs=value, details={"seed": 0}),
    )


def test_a_result_holds_what_people_and_machines_need(tmp_path):
    result = run_benchmark(benchmark(12.0))
    assert set(result) >= FIELDS | {"command"}
    assert result["met"] is True
    assert result["ratio"] == 12.0
    path = save_result(result, tmp_path)
    assert json.loads(path.read_text()) == last_result("test.figure", tmp_path)
    assert last_result("test.absent", tmp_path) is None


@pytest.mark.parametrize(
    ("value", "better", "met"),
    [
        (10.0, "higher", True),
        (9.9, "higher", False),
        (10.0, "lower", True),
        (10.1, "lower", False),
        (math.nan, "higher", False),
        (math.nan, "lower", False),
    ],
)
def test_targets_are_compared_in_the_right_direction(value, better, met):
    assert benchmark(value, better=better).met(value) is met


def test_a_value_that_is_no_number_is_kept_as_not_met(tmp_path):
    for value in (math.inf, math.nan):
        result = run_benchmark(benchmark(value, better="lower"))
        save_result(result, tmp_path)
        kept = last_result("test.figure", tmp_path)
        assert (kept["value"], kept["met"]) == (None, False)


def test_a_damaged_result_names_the_way_out(tmp_path):
    (tmp_path / "test.figure.json").write_text('{"val')
    with pytest.raises(FileFormatError, match=r"run: safectl bench test\.figure"):
        last_result("test.figure", tmp_path)


def test_names_are_grouped():
    with pytest.raises(RangeError, match="benchmark name"):
        dataclasses.replace(benchmark(1.0), name="figure")
    groups = {name.partition(".")[0] for name in BENCHMARKS}
    assert groups <= {"acs", "fb", "foundation", "mcu", "ros", "safediffuser"}


def test_every_benchmark_has_a_recorded_result():
    missing = {name for name in BENCHMARKS if last_result(name, results_folder()) is None}
    compared = (*RECORDED, *TRAINING[1:])  # without the speed of the trainers, which is measured
    unmade = [each for each in compared if each.name in missing and _lacks_seeds(each)]
    assert missing <= {benchmark.name for benchmark in unmade}


def _lacks_seeds(benchmark):
    try:
        benchmark.measure()
    except FileFormatError:
        return True
    return False


def test_timing_reports_the_spread():
    timing = time_calls(lambda: sum(range(100)), calls=50)
    assert 0.0 < timing.median <= timing.p99 <= timing.largest
    assert timing.as_details("x")["x_calls"] == 50


def test_the_machine_is_described():
    assert "cores" in describe_machine()


def test_the_plain_perceptron_stays_within_its_instructions():
    assert mlp_instructions().value <= BENCHMARKS["foundation.mlp_instructions"].target


@pytest.mark.slow
def test_the_projection_stays_within_its_error():
    assert projection_error().value <= BENCHMARKS["foundation.projection_error"].target

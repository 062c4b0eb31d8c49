"""Benchmarks of the off-policy trainers: speed, and the recorded comparisons."""

import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from safectl.errors import FileFormatError
from safectl_agents.acs.methods import MethodContext, find_method
from safectl_agents.acs.report import read_results
from safectl_agents.acs.tasks import find_task
from safectl_agents.acs.td3 import ACSTD3
from safectl_agents.bench.benchmark import Benchmark, Measurement, results_folder
from safectl_agents.models import make_env

_RANDOM, _WARM_UP, _ROUND, _ROUNDS = 1_000, 2_000, 150, 5
_HIDDEN = (256, 256)  # as on AntRun
_BUFFER = 20_000
_LEAST_COST = 1e-3  # violating steps per episode; less counts as this, so that ratios are finite
_BASELINES = ("usl", "recovery", "safety-layer", "td3-lag", "sac-lag", "shaping", "td3")


def training_speed() -> Measurement:
    """Steps per second of ACS on SpeedLimit while it corrects, and of plain TD3, in turns.

    By then the critic has seen violations, so that most steps are corrected.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _training_speed()
    finally:
        torch.set_num_threads(before)


def _training_speed() -> Measurement:
    task = find_task("speed-limit")
    options: dict[str, Any] = {"learning_starts": _RANDOM, "buffer_size": _BUFFER, "device": "cpu"}
    context = MethodContext(0, _RANDOM, 0.0, 0.1, _HIDDEN, task.learning, options=options)
    models = {
        name: find_method(name).make(DummyVecEnv([lambda: make_env(task.env)]), context)
        for name in ("td3", "acs")
    }
    guarded = cast(ACSTD3, models["acs"])
    for model in models.values():
        model.learn(_WARM_UP)
    guarded.tally.reset()
    rounds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS):
        for name, model in models.items():
            began = time.perf_counter()
            model.learn(_ROUND, reset_num_timesteps=False)
            rounds[name].append(_ROUND / (time.perf_counter() - began))
    ours, theirs = (float(np.median(rounds[name])) for name in ("acs", "td3"))
    tally = guarded.tally
    return Measurement(
        ours / theirs,
        details={
            "steps_per_s": {"acs": ours, "td3": theirs},
            "rounds_steps_per_s": rounds,
            "violations_in_training": tally.violations,
            "corrected_share": tally.corrected / tally.steps,
            "correction_iterations_per_step": tally.iterations / tally.steps,
            "seed": 0,
            "updates": "one per step, policy delay 2, batch 256, networks 256-256, one thread",
        },
    )


def _recorded(task: str, method: str = "acs") -> dict[str, list[dict[str, Any]]]:
    folder = results_folder() / "acs" / task
    found = {name: [dict(seed) for seed in seeds] for name, seeds in read_results(folder).items()}
    if method not in found:
        advice = f"run: safectl bench acs --task {task} --method {method}"
        raise FileFormatError(folder, f"holds no seed of {method}", advice)
    return found


def _finals(seeds: list[dict[str, Any]], name: str) -> list[float]:
    return [float(seed["final"][name]) for seed in seeds]


def _seeds(rows: list[dict[str, Any]]) -> list[int]:
    return [int(row["settings"]["seed"]) for row in rows]


def _mean_of(task: str, name: str) -> Callable[[], Measurement]:
    """Return the mean over the recorded seeds of ACS."""

    def measure() -> Measurement:
        seeds = _recorded(task)["acs"]
        values = _finals(seeds, name)
        return Measurement(
            float(np.mean(values)),
            seconds=sum(seed["settings"]["steps"] / seed["steps_per_second"] for seed in seeds),
            details={
                "per_seed": values,
                "seeds": _seeds(seeds),
                "settings": seeds[0]["settings"],
                "machine_of_the_training": seeds[0]["machine"],
                "evaluations_averaged": seeds[0]["evaluations_averaged"],
            },
        )

    return measure


def _ant_run_cost_vs_safety_layer() -> Measurement:
    """Return the linear Safety Layer's cost over that of ACS, seeds recorded by one protocol."""
    found = _recorded("ant-run")
    if "safety-layer" not in found:
        advice = "run: safectl bench acs --task ant-run --method safety-layer"
        raise FileFormatError(results_folder() / "acs" / "ant-run", "lacks safety-layer", advice)
    ours = float(np.mean(_finals(found["acs"], "cost_mean")))
    theirs = float(np.mean(_finals(found["safety-layer"], "cost_mean")))
    seeds = {"acs": _seeds(found["acs"]), "safety-layer": _seeds(found["safety-layer"])}
    ratio = theirs / max(ours, _LEAST_COST)
    return Measurement(ratio, ours=ours, theirs=theirs, details={"seeds": seeds})


def _pretrained_violations() -> Measurement:
    """Return violations in training from an untrained critic over those from a learned one."""
    found, learned = (
        [dict(seed) for seed in read_results(results_folder() / name / "speed-limit")["acs"]]
        for name in ("acs-untrained", "acs-pretrained")
    )
    ours = [float(seed["training_violations"]) for seed in learned]
    theirs = [float(seed["training_violations"]) for seed in found]
    few, many = float(np.mean(ours)), float(np.mean(theirs))
    return Measurement(
        many / max(few, 1.0),  # none counts as one
        ours=few,
        theirs=many,
        details={
            "seeds": {"learned critic": _seeds(learned), "warm-up": _seeds(found)},
            "violations_per_seed": {"learned critic": ours, "warm-up": theirs},
            "cost_per_seed": {"learned critic": _finals(learned, "cost_mean")},
            "return_per_seed": {
                "learned critic": _finals(learned, "return_mean"),
                "warm-up": _finals(found, "return_mean"),
            },
            "settings": learned[0]["settings"],
        },
    )


def _cost_vs_baselines(task: str, method: str) -> Callable[[], Measurement]:
    """Return the lowest cost of any baseline over that of ours, with the returns beside it."""

    def measure() -> Measurement:
        found = _compared(task, method)
        ours = _mean(found[method], "cost_mean")
        lowest = min(_mean(found[name], "cost_mean") for name in _BASELINES if name in found)
        ratio = max(lowest, _LEAST_COST) / max(ours, _LEAST_COST)
        return Measurement(ratio, ours=ours, theirs=lowest, details=_table(found, method))

    return measure


def _return_share(task: str, method: str) -> Callable[[], Measurement]:
    """Return the return of ours over the best of any baseline whose cost is within the limit."""

    def measure() -> Measurement:
        found, limit = _compared(task, method), find_task(task).cost_limit
        constrained = [
            _mean(found[name], "return_mean")
            for name in _BASELINES
            if name in found and _mean(found[name], "cost_mean") <= limit
        ]
        if not constrained or max(constrained) <= 0.0:
            why = f"holds no baseline with a return and a cost of at most {limit:g}"
            raise FileFormatError(results_folder() / "acs" / task, why, "compare the costs alone")
        ours, best = _mean(found[method], "return_mean"), max(constrained)
        details = {"cost_limit": limit, **_table(found, method)}
        return Measurement(ours / best, ours=ours, theirs=best, details=details)

    return measure


def _compared(task: str, method: str) -> dict[str, list[dict[str, Any]]]:
    """Return the recorded seeds by method, with ours and a baseline among them."""
    found = _recorded(task, method)
    if not any(name in found for name in _BASELINES):
        advice = f"run: safectl bench acs --task {task} --method all"
        raise FileFormatError(results_folder() / "acs" / task, "holds no baseline", advice)
    return found


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.mean(_finals(rows, name)))


def _table(found: dict[str, list[dict[str, Any]]], method: str) -> dict[str, Any]:
    return {
        "seeds": {name: _seeds(rows) for name, rows in found.items()},
        "cost_per_seed": {name: _finals(rows, "cost_mean") for name, rows in found.items()},
        "return_per_seed": {name: _finals(rows, "return_mean") for name, rows in found.items()},
        "settings": found[method][0]["settings"],
    }


_SPEED = Benchmark(
    name="acs.training_speed_vs_td3",
    summary="training steps per second of ACS on SpeedLimit while it corrects, batch 256",
    unit="ratio",
    baseline="plain TD3 by the same trainer, in turns with it",
    target=0.6,
    better="higher",
    quick=False,
    measure=training_speed,
)

_PRETRAINED = Benchmark(
    name="acs.pretrained_violations_vs_warmup",
    summary="violations in training on SpeedLimit from an untrained critic, recorded seeds",
    unit="x",
    baseline="the same training with the critic of an earlier seed, which corrects from step 0",
    target=10.0,
    better="higher",
    quick=True,
    measure=_pretrained_violations,
)


def _comparison(task: str, title: str, method: str, name: str) -> tuple[Benchmark, Benchmark]:
    """Return how a method of ours compares to the baselines of a task, in cost and in return."""
    return (
        Benchmark(
            name=f"{name}_cost_vs_baselines",
            summary=f"cost of {method} on {title}, recorded seeds; less than 0.001 counts as that",
            unit="x",
            baseline="the lowest cost of any baseline by the same protocol",
            target=1.0,
            better="higher",
            quick=True,
            measure=_cost_vs_baselines(task, method),
        ),
        Benchmark(
            name=f"{name}_return_share",
            summary=f"return of {method} on {title}, recorded seeds",
            unit="1",
            baseline="the best by the same protocol with at most 25 violations per episode",
            target=0.95,
            better="higher",
            quick=True,
            measure=_return_share(task, method),
        ),
    )


_RECORDED = {
    "ant-run": (
        Benchmark(
            name="acs.ant_run_return",
            summary="return per 500 steps on AntRun, mean of the recorded seeds",
            unit="return",
            baseline="the authors' released log has 933 at 300,000 steps",
            target=780.0,
            better="higher",
            quick=True,
            measure=_mean_of("ant-run", "return_mean"),
        ),
        Benchmark(
            name="acs.ant_run_cost",
            summary="violating steps per 500 steps on AntRun, mean of the recorded seeds",
            unit="steps",
            baseline="the authors' released log has 7.4 at 300,000 steps",
            target=10.0,
            better="lower",
            quick=True,
            measure=_mean_of("ant-run", "cost_mean"),
        ),
        Benchmark(
            name="acs.ant_run_cost_vs_safety_layer",
            summary="cost of ACS on AntRun, recorded seeds",
            unit="x",
            baseline="the linear Safety Layer by the same protocol",
            target=5.0,
            better="higher",
            quick=True,
            measure=_ant_run_cost_vs_safety_layer,
        ),
    ),
    "speed-limit": (
        *_comparison("speed-limit", "SpeedLimit", "acs", "acs.speed_limit"),
        *_comparison("speed-limit", "SpeedLimit", "acs-sac", "acs.speed_limit_sac"),
    ),
    "hopper-velocity": _comparison(
        "hopper-velocity", "HopperVelocity", "acs", "acs.hopper_velocity"
    ),
    "swimmer-velocity": _comparison(
        "swimmer-velocity", "SwimmerVelocity", "acs", "acs.swimmer_velocity"
    ),
}
"""Benchmarks of what `safectl bench acs` recorded, by task."""

TRAINING = (
    _SPEED,
    *(
        benchmark
        for task, benchmarks in _RECORDED.items()
        if (results_folder() / "acs" / task).is_dir()
        for benchmark in benchmarks
    ),
    *([_PRETRAINED] if (results_folder() / "acs-pretrained" / "speed-limit").is_dir() else []),
)
"""The speed of the trainers, and the comparisons whose seeds are recorded here."""

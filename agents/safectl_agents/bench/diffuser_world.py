"""Benchmarks of world models: a deterministic predictor beside the denoiser, or none."""

import tempfile
from functools import cache
from pathlib import Path
from statistics import mean

from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.diffusion.world_compare import Runs, compare_streams
from safectl_agents.diffusion.world_model import WorldModelConfig

SEEDS, MAZE, DATA_STEPS, UPDATES = 3, "umaze", 100_000, 2_000


def world_model_error() -> Measurement:
    """Return the error of samples of two streams over that of one stream, means of the seeds."""
    return _ratio("error")


def world_model_spread() -> Measurement:
    """Return the spread of samples of two streams over that of one stream, means of the seeds."""
    return _ratio("spread")


def _ratio(figure: str) -> Measurement:
    runs = _runs()
    one, two = (
        mean(getattr(each, figure) for each in runs[name]) for name in ("one stream", "two streams")
    )
    details = {
        "seeds": list(range(SEEDS)),
        "maze": MAZE,
        "data_steps": DATA_STEPS,
        "updates": UPDATES,
        "unit": "m",
        "runs": {
            name: [
                {key: value for key, value in each._asdict().items() if value == value}
                for each in qualities
            ]
            for name, qualities in runs.items()
        },
    }
    return Measurement(two / one, ours=two, theirs=one, details=details)


@cache
def _runs() -> Runs:
    with tempfile.TemporaryDirectory() as folder:
        return compare_streams(
            WorldModelConfig(updates=UPDATES),
            Path(folder),
            maze=MAZE,
            data_steps=DATA_STEPS,
            seeds=SEEDS,
        )


_BASELINE = "one stream of equal size (1 %), same data, updates and seeds"

DIFFUSER_WORLD = (
    Benchmark(
        name="safediffuser.world_model_error",
        summary="error of samples of a world model with a predictor stream, umaze, 16 states",
        unit="1",
        baseline=_BASELINE,
        target=1.0,
        better="lower",
        quick=False,
        measure=world_model_error,
    ),
    Benchmark(
        name="safediffuser.world_model_spread",
        summary="spread of samples given one condition with a predictor stream",
        unit="1",
        baseline=_BASELINE,
        target=1.0,
        better="lower",
        quick=False,
        measure=world_model_spread,
    ),
)

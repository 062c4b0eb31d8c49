"""The benchmarks of forward-backward models."""

import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch

from safectl.models import Batch, ForwardBackward, Learner, Sizes, UpdateSettings, draw
from safectl.seed import torch_generator
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.bench.fb_eager import EagerLearner

_ROWS, _THREADS, _WARM_UP, _CALLS = 512, 1, 1, 3
_WALKER = Sizes(nx=24, nu=6)


def update_speed(method: str, precision: Literal["float32", "bfloat16"]) -> Measurement:
    """Time one update of the published size, ours against the plain one, in turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    generator = torch_generator(0, "benchmark")
    batch = Batch(
        torch.randn(_ROWS, _WALKER.nx, generator=generator),
        2.0 * torch.rand(_ROWS, _WALKER.nu, generator=generator) - 1.0,
        torch.randn(_ROWS, _WALKER.nx, generator=generator),
        torch.ones(_ROWS),
    )
    draws = draw(_ROWS, _WALKER.nu, _WALKER.nz, 0.5, generator)
    plain = EagerLearner(ForwardBackward(_WALKER), UpdateSettings(method=method))
    ours = Learner(ForwardBackward(_WALKER), UpdateSettings(method=method, precision=precision))
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(_WARM_UP + _CALLS):
        times["plain"].append(_seconds(lambda: plain.update(batch, draws)))
        times["ours"].append(_seconds(lambda: ours.update(batch, draws)))
    spent = {name: values[_WARM_UP:] for name, values in times.items()}
    ours_s, theirs_s = float(np.median(spent["ours"])), float(np.median(spent["plain"]))
    torch.set_num_threads(threads)
    details = {
        "seed": 0,
        "method": method,
        "precision": precision,
        "rows": _ROWS,
        "threads": _THREADS,
        "clock": "processor time",
        **{f"{name}_s": [round(one, 4) for one in values] for name, values in spent.items()},
    }
    return Measurement(theirs_s / ours_s, ours=ours_s, theirs=theirs_s, details=details)


def _seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call; one thread runs, so other programs hardly matter."""
    started = time.process_time()
    call()
    return time.process_time() - started


def _speed(method: str, precision: Literal["float32", "bfloat16"]) -> Benchmark:
    words = "in bfloat16" if precision == "bfloat16" else "in float32"
    return Benchmark(
        name=f"fb.update_speed_{method.replace('-', '_')}_{precision}",
        summary=f"one update of {method.upper()} {words}, walker, 512 rows, published sizes",
        unit="x",
        baseline="the published update written plainly in eager float32, same machine and batch",
        target=2.0,
        better="higher",
        quick=True,
        measure=partial(update_speed, method, precision),
    )


FORWARD_BACKWARD = (
    *(_speed(method, "float32") for method in ("fb", "vc-fb", "mc-fb")),
    _speed("fb", "bfloat16"),
)

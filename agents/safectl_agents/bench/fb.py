"""The benchmarks of forward-backward models."""

from functools import partial
from typing import Literal

import torch

from safectl.models import Batch, ForwardBackward, Learner, Sizes, UpdateSettings, draw
from safectl.seed import torch_generator
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.bench.fb_eager import EagerLearner
from safectl_agents.bench.timing import time_calls

_ROWS, _THREADS, _CALLS = 512, 1, 3
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
    theirs_s = time_calls(lambda: plain.update(batch, draws), calls=_CALLS, warm_up=1)
    ours_s = time_calls(lambda: ours.update(batch, draws), calls=_CALLS, warm_up=1)
    torch.set_num_threads(threads)
    details = {
        "seed": 0,
        "method": method,
        "precision": precision,
        "rows": _ROWS,
        "threads": _THREADS,
        **ours_s.as_details("ours"),
        **theirs_s.as_details("plain"),
    }
    ratio = theirs_s.median / ours_s.median
    return Measurement(ratio, ours=ours_s.median, theirs=theirs_s.median, details=details)


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

"""Benchmark of training a planner without a GPU: minutes on one core, from a short stretch."""

import os
import time

import torch

from safectl.seed import torch_generator
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_agents.diffusion.settings import preset
from safectl_agents.diffusion.train import PlanRows, Trainer

PRESET, STRETCH, SEED = "umaze-small", 40, 0
_ROWS, _WIDTH = 20_000, 6


def cpu_training() -> Measurement:
    """Return the minutes of a whole training, from the processor time of a stretch on one thread.

    That is the time on one core that does nothing else. Data and checkpoints are not counted.
    """
    config, threads = preset(PRESET), torch.get_num_threads()
    rows = torch.randn(_ROWS, _WIDTH, generator=torch_generator(SEED, "rows")).clamp(-1.0, 1.0)
    data = PlanRows(rows, torch.arange(_ROWS - config.horizon))
    torch.set_num_threads(1)
    try:
        trainer = Trainer(config, data, nu=2)
        for _ in range(2):
            trainer.step()
        processor, wall = time.process_time(), time.perf_counter()
        for _ in range(STRETCH):
            trainer.step()
        processor, wall = time.process_time() - processor, time.perf_counter() - wall
    finally:
        torch.set_num_threads(threads)
    minutes = config.updates * processor / STRETCH / 60.0
    details = {
        "preset": PRESET,
        "updates": config.updates,
        "stretch": STRETCH,
        "threads": 1,
        "processor_s_per_update": processor / STRETCH,
        "wall_s_per_update": wall / STRETCH,
        "load_average": list(os.getloadavg()),
        "seed": SEED,
    }
    return Measurement(minutes, details=details)


DIFFUSER_TRAINING = (
    Benchmark(
        name="safediffuser.cpu_training",
        summary="processor time of 8,000 updates of umaze-small on one core, from 40 of them",
        unit="min",
        baseline="half an hour on two cores",
        target=30.0,
        better="lower",
        quick=False,
        measure=cpu_training,
    ),
)

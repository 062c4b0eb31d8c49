"""All benchmarks: those of this package and those of the layers above it, where installed."""

import importlib
from collections.abc import Iterable
from importlib.util import find_spec

from safectl_agents.bench.acs_safeguard import ACS_SAFEGUARD
from safectl_agents.bench.acs_training import TRAINING
from safectl_agents.bench.benchmark import Benchmark
from safectl_agents.bench.diffuser import SAFEDIFFUSER
from safectl_agents.bench.diffuser_data import DIFFUSER_DATA
from safectl_agents.bench.diffuser_training import DIFFUSER_TRAINING
from safectl_agents.bench.diffuser_world import DIFFUSER_WORLD
from safectl_agents.bench.fb import FORWARD_BACKWARD
from safectl_agents.bench.fb_training import RECORDED
from safectl_agents.bench.fb_visits import VISITS
from safectl_agents.bench.foundation import FOUNDATION
from safectl_agents.bench.mcu_adaptation import ADAPTATION
from safectl_agents.bench.mcu_boards import BOARDS
from safectl_agents.bench.mcu_filters import FILTERS
from safectl_agents.bench.mcu_networks import NETWORKS
from safectl_agents.bench.mcu_ngpc import NGPC
from safectl_agents.bench.mcu_peers import PEERS
from safectl_agents.bench.mcu_tinympc import TINY
from safectl_agents.bench.mcu_tracking import TRACKING

_ABOVE = ("safectl_ros.bench",)
"""Modules with a tuple `BENCHMARKS`, imported by name: no import here may point upwards."""


def _from_above() -> Iterable[Benchmark]:
    for name in _ABOVE:
        if find_spec(name.partition(".")[0]) is not None:
            yield from importlib.import_module(name).BENCHMARKS


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *FOUNDATION,
        *BOARDS,
        *NGPC,
        *TRACKING,
        *ADAPTATION,
        *NETWORKS,
        *FILTERS,
        *PEERS,
        *TINY,
        *TRAINING,
        *ACS_SAFEGUARD,
        *SAFEDIFFUSER,
        *DIFFUSER_DATA,
        *DIFFUSER_TRAINING,
        *DIFFUSER_WORLD,
        *FORWARD_BACKWARD,
        *RECORDED,
        *VISITS,
        *_from_above(),
    )
}
"""All benchmarks by name."""

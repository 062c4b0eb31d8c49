"""The figures of the ROS layer in the common list."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from safectl.errors import BridgeError
from safectl_agents.bench.catalogue import BENCHMARKS
from safectl_ros.bench.domain import own_domain
from safectl_ros.bench.graph import loopback_graph, node_process
from safectl_ros.bench.hop import RATES_HZ, WAYS, Hops
from safectl_ros.bench.jitter import draw
from safectl_ros.bench.soak import scheduling
from tests.ros_graph import START_S

LIST = """
import sys
from safectl_agents.bench.catalogue import BENCHMARKS
assert "ros.lockstep_rate" in BENCHMARKS
assert "rclpy" not in sys.modules
"""


def test_the_figures_are_in_the_common_list():
    names = [name for name in BENCHMARKS if name.startswith("ros.")]
    assert "ros.lockstep_rate" in names


@pytest.mark.slow
def test_listing_them_needs_no_ros():
    subprocess.run([sys.executable, "-c", LIST], check=True)


def test_a_graph_leaves_the_environment_as_it_was():
    before = dict(os.environ)
    with loopback_graph():
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SYSTEM_DEFAULT"
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_node_process_ends_with_its_block():
    with (
        loopback_graph(),
        node_process("safectl_ros.nodes.sim", env_id="Nothing-v0") as process,
    ):
        assert process.wait(START_S) == 1
    assert process.returncode != -signal.SIGKILL


def test_latencies_and_gaps_become_a_picture(tmp_path):
    generator = np.random.default_rng(0)
    latencies = {(way, rate): generator.gamma(2.0, 1e-3, 200) for way in WAYS for rate in RATES_HZ}
    outputs = {way: np.cumsum(generator.normal(0.02, 1e-3, 200)) for way in WAYS}
    draw(Hops(latencies, outputs), tmp_path / "jitter.png")
    picture = imread(tmp_path / "jitter.png")
    assert min(picture.shape[:2]) > 300
    assert picture[..., :3].std() > 0.05, "nothing is drawn"


def test_a_soak_names_its_scheduling():
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        assert scheduling() == "SCHED_BATCH"
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    assert scheduling() == "SCHED_OTHER"


def test_two_runs_at_once_have_domains_of_their_own():
    with own_domain() as first:
        with own_domain() as second:
            assert first != second
        with own_domain() as third:
            assert third == second, "given back"


def test_no_domain_left_is_an_error(monkeypatch):
    monkeypatch.setattr("safectl_ros.bench.domain.DOMAINS", range(0))
    with pytest.raises(BridgeError, match="DDS domains are taken"), own_domain():
        pass

"""The figures of the ROS layer in the common list."""

import os
import signal
import subprocess
import sys

import pytest

from safectl_agents.bench.catalogue import BENCHMARKS
from safectl_ros.bench.graph import loopback_graph, node_process
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

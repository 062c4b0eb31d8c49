"""The DDS domain of this worker and a node to look with."""

import pytest
from rclpy.node import Node

from safectl_ros.nodes.sim import SimNode
from safectl_ros.process import RosThread
from tests.ros_graph import ros_environment


@pytest.fixture(scope="session")
def ros_domain(tmp_path_factory):
    """Set the environment of this process and its children; returns the worker's DDS domain."""
    settings = ros_environment(tmp_path_factory.mktemp("ros_log"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield int(settings["ROS_DOMAIN_ID"])


@pytest.fixture
def probe(ros_domain):
    """A plain node in a context of its own."""
    with RosThread(lambda context: Node("probe", context=context)) as thread:
        yield thread


@pytest.fixture
def simulator(ros_domain):
    """Return a function that starts a simulator node in a context of its own."""
    threads = []

    def start(env_id, **parameters):
        words = {"env_id": env_id, "mode": "lockstep", **parameters}
        arguments = ["--ros-args"]
        for name, value in words.items():
            arguments += ["-p", f"{name}:={value}"]
        threads.append(RosThread(lambda context: SimNode(context), arguments=arguments))
        return threads[-1]

    yield start
    for thread in threads:
        thread.close()


@pytest.fixture
def start(ros_domain):
    """Return what starts a node in a context of its own."""
    threads = []

    def run(node, **parameters):
        pairs = [f"{name}:={value}" for name, value in parameters.items()]
        line = ["--ros-args", *[word for pair in pairs for word in ("-p", pair)]]
        threads.append(RosThread(lambda context: node(context), arguments=line))
        return threads[-1]

    yield run
    for thread in threads:
        thread.close()

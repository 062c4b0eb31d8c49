"""Nodes as processes of a launch file, in the DDS domain of this worker."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from rclpy.node import Node

from safectl_ros.launchlite import launched as run_launched
from safectl_ros.process import RosThread
from tests.ros_graph import ros_environment
from tests.ros_prefix import install

RUNS = pytest.StashKey()
_GRACE_S = 30.0  # a loaded machine takes seconds to end a process that has imported torch
_PRIORITY = -15  # where we may: a loaded machine delays tests of timing


@pytest.fixture(scope="session")
def prefix(tmp_path_factory):
    """Where the package is installed."""
    return install(tmp_path_factory.mktemp("prefix"))


@pytest.fixture(scope="session")
def ros_domain(tmp_path_factory, prefix):
    """Set the environment of this process and its children; returns the worker's DDS domain."""
    settings = ros_environment(tmp_path_factory.mktemp("ros_log"))
    settings["AMENT_PREFIX_PATH"] = str(prefix)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield int(settings["ROS_DOMAIN_ID"])


@pytest.fixture
def probe(ros_domain):
    """A node in a thread of this process."""
    with RosThread(lambda context: Node("probe", context=context)) as thread:
        yield thread


@pytest.fixture
def launched(ros_domain, request):
    """Run a launch file until the end of the test; its output is attached to a test that fails."""
    runs = request.node.stash.setdefault(RUNS, [])
    with ExitStack() as stack:

        def start(file, **arguments):
            running = stack.enter_context(run_launched(file, **arguments))
            running.supervisor.grace_s = _GRACE_S
            runs.append((str(file), running))
            return running

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        report.sections += [(file, running.output()) for file, running in item.stash.get(RUNS, [])]
    return report


@pytest.fixture
def urgent():
    """Raise the priority of a running process and its threads, where we may."""

    def raise_priority(pid):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            try:
                os.setpriority(os.PRIO_PROCESS, int(thread.name), _PRIORITY)
            except PermissionError:
                return

    return raise_priority

"""A graph of nodes for a measurement: several processes on the loopback device of this machine."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safectl_ros.bench.domain import own_domain

PROFILE = Path(__file__).parents[2] / "dds" / "ci.xml"
"""UDP on the loopback address only; there in a checkout."""

_PATIENCE_S = 10.0
_URGENT = -15


@contextmanager
def loopback_graph() -> Iterator[None]:
    """Keep the DDS participants of this process and its children on this machine."""
    before = dict(os.environ)
    with own_domain() as domain, tempfile.TemporaryDirectory(prefix="safectl-ros-") as folder:
        settings = {"ROS_DOMAIN_ID": str(domain), "ROS_LOG_DIR": folder}
        settings["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"
        if PROFILE.exists():
            settings["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(PROFILE)
            settings["FASTDDS_DEFAULT_PROFILES_FILE"] = str(PROFILE)
        os.environ.update(settings)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def node_process(
    module: str, *remaps: str, **parameters: object
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node as a process of its own and end it by SIGINT.

    Args:
        module: The node's module, for example `safectl_ros.nodes.sim`.
        remaps: Its remappings, for example `odom:=/odom`.
        parameters: Its ROS parameters; texts must be valid YAML scalars.
    """
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    words += [word for remap in remaps for word in ("-r", remap)]
    command = [sys.executable, "-m", module, "--ros-args", *words]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def hurry(*pids: int) -> None:
    """Raise the priority of processes, 0 for this one, where we may."""
    for pid in pids:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, pid, _URGENT)

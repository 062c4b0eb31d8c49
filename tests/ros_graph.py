"""Real DDS on the loopback device: one domain per worker, waits with limits, no sleeping."""

import os
import threading
import time
from importlib.metadata import version
from pathlib import Path

PROFILE = Path(__file__).parents[1] / "launch" / "dds" / "ci.xml"
DISCOVERY_S = 15.0
PROFILE_VARIABLE = (  # Jazzy knows only the first, Kilted warns of it
    "FASTRTPS_DEFAULT_PROFILES_FILE"
    if version("ros-rclpy").startswith("7.")
    else "FASTDDS_DEFAULT_PROFILES_FILE"
)
START_S = 60.0  # of a process that imports torch, on a loaded machine


def ros_environment(log_folder):
    """Return the variables that keep the nodes of one worker on this machine and to themselves."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return {
        "ROS_DOMAIN_ID": str(1 + int(worker)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
        PROFILE_VARIABLE: str(PROFILE),
        "ROS_LOG_DIR": str(log_folder),
        "PYTHONUNBUFFERED": "1",
    }


class Inbox:
    """Messages of one topic in order of arrival."""

    def __init__(self, node, message_type, topic, qos):
        self.messages = []
        self._arrived = threading.Condition()
        self.subscription = node.create_subscription(message_type, topic, self._put, qos)

    def _put(self, message):
        with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()

    def wait(self, holds=bool, timeout_s=DISCOVERY_S):
        """Wait until something holds for the messages, at least one; returns the newest."""
        with self._arrived:
            assert self._arrived.wait_for(
                lambda: self.messages and holds(self.messages), timeout_s
            ), f"not within {timeout_s} s; got {len(self.messages)} messages"
            return self.messages[-1]


def wait_until(holds, timeout_s=DISCOVERY_S, poll_s=0.005):
    """Wait for something that cannot notify, such as the discovery of a peer."""
    pause = threading.Event()
    limit = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < limit, f"not within {timeout_s} s"
        pause.wait(poll_s)

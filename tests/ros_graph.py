"""Real DDS on the loopback device: a domain of one's own, waits with limits, no sleeping."""

import threading
from contextlib import ExitStack
from functools import cache
from importlib.metadata import version
from pathlib import Path

from safectl_ros.bench.domain import own_domain

PROFILE = Path(__file__).parents[1] / "launch" / "dds" / "ci.xml"
DISCOVERY_S = 15.0
PROFILE_VARIABLE = (  # Jazzy knows only the first, Kilted warns of it
    "FASTRTPS_DEFAULT_PROFILES_FILE"
    if version("ros-rclpy").startswith("7.")
    else "FASTDDS_DEFAULT_PROFILES_FILE"
)
_until_the_end = ExitStack()
START_S = 60.0  # of a process that imports torch, on a loaded machine


def ros_environment(log_folder):
    """Return the variables that keep the nodes of one worker on this machine and to themselves."""
    return {
        "ROS_DOMAIN_ID": str(_domain()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
        PROFILE_VARIABLE: str(PROFILE),
        "ROS_LOG_DIR": str(log_folder),
        "PYTHONUNBUFFERED": "1",
    }


@cache
def _domain():
    """Return the domain of this process: one, whichever tests it runs, until it ends."""
    return _until_the_end.enter_context(own_domain())


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

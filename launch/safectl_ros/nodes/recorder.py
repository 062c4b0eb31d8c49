"""`recorder_node`: writes topics into a rosbag2 bag (MCAP) as they come, without decoding them.

It records the listed topics, or every topic that appears, with the quality of service that their
publishers offer, and stamps each message with the time of its arrival in the middleware. SIGINT and
SIGTERM close the bag. After SIGKILL everything that `~/recorded` has counted, at most `flush_s`
behind, can be read again: `safectl bag FOLDER --recover NEW-FOLDER`.
"""

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_best_available
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from std_msgs.msg import UInt64

from safectl.errors import ConfigError
from safectl_ros.bag_writer import BagWriter
from safectl_ros.diagnostics import OK, WARN, Finding, Reporter
from safectl_ros.message_types import message_class
from safectl_ros.parameters import Parameter, declare
from safectl_ros.process import Message, spin_node
from safectl_ros.qos import LATCHED

_LOOK_S = 0.5  # between two looks at the graph
_DEPTH = 1000  # messages of one topic that may wait while the disk is slow

PARAMETERS = (
    Parameter("folder", "", "bag to make, a new folder; empty: runs/bag-<time>", read_only=True),
    Parameter("topics", "", "topics, separated by commas; empty: all", read_only=True),
    Parameter(
        "flush_s",
        0.2,
        "what a kill may lose [s]",
        low=0.01,
        high=10.0,
        read_only=True,
    ),
)


class RecorderNode(Node):
    """The node; see the module."""

    def __init__(self, context: Context | None = None) -> None:
        super().__init__("recorder", context=context)
        values = declare(self, PARAMETERS)
        listed = [name.strip() for name in values["topics"].split(",") if name.strip()]
        self._listed = {self.resolve_topic_name(name) for name in listed}
        self._refused: dict[str, str] = {}
        self._unheard: dict[str, str] = {}
        self._own = self.resolve_topic_name("~/recorded")  # recorded, it would count itself
        self._topics: dict[str, Connection] = {}
        folder = values["folder"] or f"runs/bag-{time.strftime('%Y%m%d-%H%M%S')}"
        self._bag = BagWriter(Path(folder))
        self._recorded = self.create_publisher(UInt64, "~/recorded", LATCHED)
        Reporter(self, "bag", hardware_id="disk", look=self._find)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_LOOK_S, self._look, clock=steady)
        self.create_timer(values["flush_s"], self._flush, clock=steady)
        self.get_logger().info(f"recording into {folder}")
        self._look()

    def destroy_node(self) -> None:
        """Close the bag, then destroy the node."""
        if hasattr(self, "_bag"):  # Kilted destroys a node whose start has failed, too
            self._bag.close()
        super().destroy_node()

    def _look(self) -> None:
        """Subscribe to what has appeared; a topic without a publisher has no type yet."""
        for topic, types in self.get_topic_names_and_types():
            wanted = topic in self._listed or not (self._listed or topic == self._own)
            known = topic in self._topics or topic in self._refused
            if wanted and not known and self.count_publishers(topic) > 0:
                self._subscribe(topic, types)

    def _subscribe(self, topic: str, types: list[str]) -> None:
        try:
            if len(types) > 1:
                raise ConfigError(topic, f"carries several types: {', '.join(types)}")
            kind = message_class(types[0])
            if not self._bag.knows(types[0]):
                raise ConfigError(types[0], "has no definition that a bag could hold")
        except ConfigError as error:
            self._refused[topic] = str(error)
            self.get_logger().warning(f"{topic} is not recorded: {error}")
            return
        offered = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
        handle = self._bag.add_topic(topic, types[0], [_qos(profile) for profile in offered])
        self._topics[topic] = handle
        profile = copy.copy(qos_profile_best_available)
        profile.depth = _DEPTH
        write = self._writer_of(handle)
        events = SubscriptionEventCallbacks(incompatible_qos=lambda event: self._miss(topic, event))
        self.create_subscription(kind, topic, write, profile, raw=True, event_callbacks=events)  # type: ignore[arg-type]  # rclpy's annotation lacks the second argument

    def _miss(self, topic: str, event: Message) -> None:
        """Note a publisher that appeared later and offers less than the first ones."""
        policy = event.last_policy_kind.name
        self._unheard[topic] = f"{topic}: a later publisher is not recorded ({policy})"
        self.get_logger().warning(self._unheard[topic])

    def _writer_of(self, handle: Connection) -> Callable[[bytes, Any], None]:
        def write(data: bytes, info: Message) -> None:
            self._bag.write(handle, info["received_timestamp"], data)

        return write

    def _flush(self) -> None:
        before = self._bag.recorded
        self._bag.flush()
        if self._bag.recorded != before:
            self._recorded.publish(UInt64(data=self._bag.recorded))

    def _find(self) -> Finding:
        missing = sorted(self._listed - set(self._topics))
        problems = [f"waits for {name}" for name in missing]
        problems += [*self._refused.values(), *self._unheard.values()]
        values = {"messages": self._bag.recorded, "topics": len(self._topics)}
        return Finding(WARN if problems else OK, "; ".join(problems) or "recording", values)


def _qos(profile: QoSProfile) -> Qos:
    """Return an offer as bags hold it, so that a player can offer the same."""
    return Qos(
        QosHistory(int(profile.history)),
        profile.depth,
        QosReliability(int(profile.reliability)),
        QosDurability(int(profile.durability)),
        _time(profile.deadline.nanoseconds),
        _time(profile.lifespan.nanoseconds),
        QosLiveliness(int(profile.liveliness)),
        _time(profile.liveliness_lease_duration.nanoseconds),
        profile.avoid_ros_namespace_conventions,
    )


def _time(nanoseconds: int) -> QosTime:
    return QosTime(*divmod(nanoseconds, 10**9))


def main() -> int:
    """Run the node."""
    return spin_node(RecorderNode)


if __name__ == "__main__":
    sys.exit(main())

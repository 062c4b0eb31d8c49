"""The topics of one robot, for code that waits: newest state in, commands out."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile

from safectl.errors import AdapterError
from safectl_ros.adapters import Array, Interface
from safectl_ros.process import Message, RosThread
from safectl_ros.qos import LATCHED, safe_command

_POLL_S = 0.01


class Received(NamedTuple):
    """A state as it arrived.

    Attributes:
        state: Shape (nx,), float64, units of the interface.
        stamp_ns: The publisher's stamp [ns]; without one, the time of arrival.
        arrival: When it arrived, on the steady clock of this machine [s].
    """

    state: Array
    stamp_ns: int
    arrival: float


class RobotLink:
    """One publisher and one subscription in a `RosThread`.

    Args:
        interface: Messages of the robot.
        name: Name of the node.
        command_topic: Where commands go.
        state_qos: How states are subscribed to.
        guard: Name of the guard node, if there is one.
        domain_id: DDS domain; that of `ROS_DOMAIN_ID` by default.

    Attributes:
        thread: The thread, for further clients and subscriptions.
        changed: Notified when a state arrives, and by those further subscriptions.
        repeats: How often the newest state has come again since the last command.
        problem: Why the newest message could not be read; empty when it could.
        intervention: What the guard last said about its commands; empty without a guard.
    """

    def __init__(
        self,
        interface: Interface,
        *,
        name: str,
        command_topic: str,
        state_qos: QoSProfile,
        guard: str = "guard",
        domain_id: int | None = None,
    ) -> None:
        self.interface = interface
        self.changed = threading.Condition()
        self.problem = self.intervention = ""
        self.repeats = 0
        self._newest: Received | None = None
        self.thread = RosThread(lambda context: Node(name, context=context), domain_id=domain_id)
        offer = safe_command(1.0 / interface.spec.period)
        self._commands = self.thread.node.create_publisher(
            interface.command_type, command_topic, offer
        )
        self.thread.node.create_subscription(
            interface.state_type, interface.state_topic, self._on_state, state_qos
        )
        self.thread.node.create_subscription(
            DiagnosticStatus, f"{guard}/intervention", self._on_intervention, LATCHED
        )

    @property
    def newest(self) -> Received | None:
        """The state that arrived last."""
        return self._newest

    @property
    def listeners(self) -> int:
        """Number of subscriptions that receive the commands."""
        return int(self._commands.get_subscription_count())

    def await_listener(self, timeout_s: float) -> bool:
        """Wait until somebody receives the commands; returns whether somebody does."""
        limit = time.monotonic() + timeout_s
        while self.listeners == 0 and time.monotonic() < limit:
            with self.changed:  # discovery notifies nobody
                self.changed.wait(_POLL_S)
        return self.listeners > 0

    def send(self, command: Array) -> None:
        """Publish a command of shape (nu,) with the stamp of the newest state."""
        with self.changed:
            stamp_ns, self.repeats = self._newest.stamp_ns if self._newest else 0, 0
        self._commands.publish(self.interface.array_to_command(command, stamp_ns))

    def wait(self, holds: Callable[[Received], bool], timeout_s: float) -> Received | None:
        """Wait for a newest state of which something holds; none when that takes too long."""
        with self.changed:
            self.changed.wait_for(lambda: self._newest and holds(self._newest), timeout_s)
            return self._newest if self._newest and holds(self._newest) else None

    def close(self) -> None:
        """Leave the graph."""
        self.thread.close()

    def _on_state(self, message: Message) -> None:
        arrival = time.monotonic()
        with self.changed:
            try:
                state = self.interface.state_to_array(message)
            except AdapterError as error:
                self.problem = str(error)
                return
            stamp_ns = self.interface.stamp_of(message)
            stamp_ns = round(arrival * 1e9) if stamp_ns is None else stamp_ns
            is_known = self._newest is not None and self._newest.stamp_ns == stamp_ns
            self.repeats = self.repeats + 1 if is_known else 0
            self._newest, self.problem = Received(state, stamp_ns, arrival), ""
            self.changed.notify_all()

    def _on_intervention(self, message: Message) -> None:
        self.intervention = message.message

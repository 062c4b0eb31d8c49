"""What the last link before the motors does with commands: follow the newest one, or stop."""

import time
from collections.abc import Callable

import numpy as np
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile

from safectl.errors import AdapterError
from safectl_ros.adapters.interface import Array, Interface
from safectl_ros.process import Message

QUIET_S = 2.0
"""Between two warnings of one kind [s]."""

_REFUSED = "refused"


class LastLink:
    """A watchdog without a clock: instants are arguments, on a steady clock [s].

    The command is zero until the first one has come, when the newest is older than the deadline,
    and from a refused command until the next good one. Nothing is filtered here: what may be
    followed is the guard's business.

    Args:
        size: Number of actions.
        deadline_s: Silence after which the robot stops [s].

    Attributes:
        reason: Why the robot is stopped; empty while it follows commands.
        refused: Number of refused commands.
    """

    def __init__(self, size: int, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._zero = np.zeros(size)
        self._newest = self._zero
        self._heard, self._queued = 0.0, 0
        self.reason = "no command yet"
        self.refused = 0

    def receive(self, command: Array, now: float) -> bool:
        """Take a command of shape (size,); returns whether it is followed: it must be finite."""
        if not np.isfinite(command).all():
            self.refuse("the command is not finite")
            return False
        if self._queued > 0:
            self._queued -= 1
            return False
        self._newest, self._heard, self.reason = command, now, ""
        return True

    def refuse(self, reason: str) -> None:
        """Stop because of a command that cannot be followed."""
        self.refused += 1
        self.stop(f"{_REFUSED}: {reason}")

    @property
    def is_refusing(self) -> bool:
        """Whether the robot is stopped because of what the newest command was."""
        return self.reason.startswith(_REFUSED)

    def stop(self, reason: str) -> None:
        """Stop until the next good command."""
        self._newest, self.reason = self._zero, reason

    def forget(self, queued: int = 0) -> None:
        """Stop because the robot starts anew; a command from before does not count.

        Args:
            queued: How many commands may have waited unread meanwhile: so many are passed over.
        """
        self._queued = queued
        self.stop("no command yet")

    def command(self, now: float) -> Array:
        """Return what the motors get at an instant, shape (size,)."""
        if not self.reason and not now - self._heard <= self.deadline_s:
            self.stop(f"no command for {self.deadline_s:g} s")
        return self._newest


def follow(
    node: Node,
    interface: Interface,
    link: LastLink,
    qos: QoSProfile,
    on_good: Callable[[Array, int | None], None] = lambda command, stamp_ns: None,
) -> None:
    """Subscribe a node to the safe command of its robot, and say why it stops.

    Args:
        node: Owns the subscription and the log.
        interface: Messages of the robot.
        link: Takes what comes in; the deadline event of the subscription stops it.
        qos: Of the subscription.
        on_good: Gets each command that is followed, and its stamp [ns] where it has one.
    """
    log, deadline = node.get_logger(), f"{link.deadline_s:g} s"

    def on_command(message: Message) -> None:
        try:
            command = interface.command_to_array(message)
        except AdapterError as error:
            link.refuse(str(error))
        else:
            if link.receive(command, time.monotonic()):
                on_good(command, interface.stamp_of(message))
        if link.is_refusing:
            log.error(link.reason, throttle_duration_sec=QUIET_S)

    def on_incompatible(event: Message) -> None:
        log.error(
            f"a publisher of {interface.safe_topic} does not connect "
            f"({event.last_policy_kind.name}): it must offer a deadline of at most {deadline} and "
            "be reliable",
            throttle_duration_sec=QUIET_S,
        )

    events = SubscriptionEventCallbacks(
        deadline=lambda _: link.stop(f"no command for {deadline}"), incompatible_qos=on_incompatible
    )
    node.create_subscription(
        interface.command_type, interface.safe_topic, on_command, qos, event_callbacks=events
    )

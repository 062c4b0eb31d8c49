"""A configured guard: its topics, its timers, its state machine.

Outputs are sent at a fixed rate by a timer on the steady clock, whatever arrives. A command is
answered when it arrives, and then the timer's next turn is skipped, so that filtering does not cost
a period. In lock-step (`watchdog_clock: ros`) there is no timer: each command is answered, with the
stamp that it carried, once the observation of that stamp is there.
"""

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from jaxtyping import Float64
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Bool, Float64MultiArray
from visualization_msgs.msg import MarkerArray

from safectl.errors import AdapterError
from safectl_ros import guard_reports
from safectl_ros.adapters import Array, BaseInterface
from safectl_ros.adapters.stamps import to_time
from safectl_ros.budget import BudgetedFilter
from safectl_ros.diagnostics import OK, make_report
from safectl_ros.fingerprint import fingerprint
from safectl_ros.guard_logic import GuardLogic, Output, State
from safectl_ros.guard_parameters import STEADY, settings_from
from safectl_ros.guard_safeguard import (
    apart,
    load_limited,
    output_period,
    rebuild_safeguard,
    warm_up,
)
from safectl_ros.process import Message
from safectl_ros.qos import COMMAND, DIAGNOSTICS, LATCHED, SENSOR, WATCHED_ESTOP, safe_command
from safectl_ros.robot_file import Robot, load_robot
from safectl_ros.safeguards import compile_rows

_ANSWERS_PER_TURN = 4
"""So many commands at most are answered between two turns of the timer; the rest wait for it."""

_LAST_ZERO = Duration(seconds=0.2)
"""How long the last zero may take to arrive before its publisher is destroyed."""

_REPORT_S = 1.0
_SECOND = 1e9
_ESTOP = "estop"


class GuardRuntime:
    """What exists between configure and clean-up.

    Args:
        node: Owns publishers, subscriptions and timers.
        values: Parameters by name.

    Raises:
        ConfigError: If robot or safeguard cannot be loaded, or do not fit each other.
    """

    def __init__(self, node: Node, values: Mapping[str, Any]) -> None:
        self._node, self._values = node, dict(values)
        self.robot: Robot = load_robot(values["robot"], sees_state=values["sees_state"])
        self._is_steady = values["watchdog_clock"] == STEADY
        self._period_s = output_period(values, self.robot.spec, is_steady=self._is_steady)
        self._files = fingerprint(Path(values["safeguard"]))
        self.loaded, self.decided_by = compile_rows(
            *load_limited(Path(values["safeguard"]), self.robot, values["limit_shares"])
        )
        self._prepared = self.loaded
        safeguard, memories = apart(self.loaded.safeguard)
        warm_up(safeguard, self.robot.spec)
        self.filter = BudgetedFilter(
            safeguard,
            values["filter_budget_s"],
            is_bounded=self.loaded.is_bounded,
        )
        self.logic = GuardLogic(
            self.robot.spec,
            settings_from(values),
            self.robot.stops,
            self.filter,
            memories,
            is_steady=self._is_steady,
        )
        self.counters = guard_reports.Counters()
        self.incompatible: dict[str, str] = {}
        self._answers = 0
        self._is_owed = False
        self._command_stamp: int | None = None
        self._observed_stamp: int | None = None
        self._is_waiting = False
        self._pose = np.zeros(3)
        self._last: Output | None = None
        self._is_stuck = False
        self._entities: list[Any] = []
        self._show_due = self._report_due = -math.inf
        self._advertise(safe_command(values["rate_hz"]))
        self._subscribe()
        wall = Clock(clock_type=ClockType.STEADY_TIME)
        if self._is_steady:
            timers = [(self._period_s, self._on_timer)]
        else:
            timers = [(1.0 / values["margins_hz"], self._show), (_REPORT_S, self.report)]
        self._timers = [node.create_timer(*timer, clock=wall) for timer in timers]

    def now(self) -> float:
        """Return the time of the watchdogs [s]."""
        if self._is_steady:
            return time.monotonic()
        return float(self._node.get_clock().now().nanoseconds) / _SECOND

    def prepare(self, shares: Iterable[float]) -> None:
        """Build the safeguard that `change` will use, with other limits; nothing else changes yet.

        Raises:
            ConfigError: If that is impossible, or its files are not those of the configuration.
        """
        if list(shares) == list(self._values["limit_shares"]):
            return
        source = Path(self._values["safeguard"])
        self._prepared = rebuild_safeguard(source, self.robot, shares, self._files)

    def change(self, values: Mapping[str, Any]) -> None:
        """Use other parameters from now on; other limits are those that were prepared."""
        if list(values["limit_shares"]) != list(self._values["limit_shares"]):
            self.loaded = self._prepared
            self.decided_by = "torch: the limits have changed since the node was configured"
            self.filter.safeguard, memories = apart(self.loaded.safeguard)
            self.logic.adopt(memories)
        self.logic.change(settings_from(values))
        self._values = dict(values)

    def send(self) -> None:
        """Decide now and send it."""
        now = self.now()
        output = self.logic.tick(now)
        if output.decision is not None:
            command = output.decision.action[0].numpy().astype(np.float64)
            self._safe.publish(self.robot.interface.array_to_command(command, self._stamp(output)))
        is_stuck = self.logic.is_stuck(now)
        has_changed = output.has_changed or is_stuck != self._is_stuck
        self._last, self._is_stuck = output, is_stuck
        self.counters.count(output)
        if has_changed:
            self._announce(output)
        elif self._is_steady:
            self._show_and_report()

    def report(self) -> None:
        """Publish the diagnostics."""
        if self._last is None:
            return
        stamp = self._node.get_clock().now().to_msg()
        topic = self._safe.topic_name
        publishers = [
            f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for info in self._node.get_publishers_info_by_topic(topic)
        ]
        links = guard_reports.links(
            self._node.get_name(),
            self._values["robot"],
            publishers=publishers,
            estops=self._node.count_publishers(_ESTOP),
            incompatible=self.incompatible,
        )
        self._diagnostics.publish(make_report(stamp, [self._status(self._last), links]))

    def close(self) -> None:
        """Send zeros for a while, then give everything back."""
        self.logic.deactivate()
        until = time.monotonic() + self._values["stop_pub_s"]
        while self._node.context.ok():
            self.send()
            if time.monotonic() >= until:
                break
            time.sleep(self._period_s)
        if self._node.context.ok():
            self._safe.wait_for_all_acked(_LAST_ZERO)
        for timer in self._timers:
            self._node.destroy_timer(timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self.filter.close()

    def _advertise(self, offer: QoSProfile) -> None:
        interface, node = self.robot.interface, self._node
        events = PublisherEventCallbacks(
            incompatible_qos=lambda event: self._mismatch(interface.safe_topic, event)
        )
        self._safe = node.create_publisher(
            interface.command_type, interface.safe_topic, offer, event_callbacks=events
        )
        # Events of the reports are not listened to: each would lengthen every turn of the executor.
        quiet = PublisherEventCallbacks(use_default_callbacks=False)
        self._interventions, self._margins, self._markers, self._diagnostics = (
            node.create_publisher(kind, topic, qos, event_callbacks=quiet)
            for kind, topic, qos in (
                (DiagnosticStatus, "~/intervention", LATCHED),
                (Float64MultiArray, "~/margins", SENSOR),
                (MarkerArray, "~/markers", COMMAND),
                (DiagnosticArray, "/diagnostics", DIAGNOSTICS),
            )
        )
        self._publishers = [
            self._safe,
            self._interventions,
            self._margins,
            self._markers,
            self._diagnostics,
        ]

    def _subscribe(self) -> None:
        interface = self.robot.interface
        # The observation first: the executor serves it before a command that came with it.
        wanted = [
            (interface.state_type, self.robot.state_topic, self._on_observation, SENSOR),
            (interface.command_type, interface.command_topic, self._on_command, COMMAND),
        ]
        if self._values["use_estop"]:
            wanted.append((Bool, _ESTOP, self._on_estop, WATCHED_ESTOP))
        self._subscriptions = [self._listen(*topic) for topic in wanted]

    def _listen(self, kind: type, topic: str, callback: Any, qos: QoSProfile) -> Any:  # noqa: ANN401  rclpy's types
        events = SubscriptionEventCallbacks(
            incompatible_qos=lambda event: self._mismatch(topic, event)
        )
        return self._node.create_subscription(kind, topic, callback, qos, event_callbacks=events)

    def _mismatch(self, topic: str, event: Message) -> None:
        policy = event.last_policy_kind.name.removeprefix("RMW_QOS_POLICY_")
        self.incompatible[topic] = f"incompatible {policy}"
        self._node.get_logger().error(f"quality of service of {topic}: {self.incompatible[topic]}")
        if topic == _ESTOP:
            self.logic.estop.distrust("one of its sources cannot be heard")
        self.report()

    def _on_observation(self, message: Message) -> None:
        interface, now = self.robot.interface, self.now()
        try:
            values = interface.state_to_array(message)
        except AdapterError as error:
            self.counters.refused_observations += 1
            self.logic.observation.refuse(str(error), now)
            return
        stamp = interface.stamp_of(message)
        self._observed_stamp = stamp
        if isinstance(interface, BaseInterface):
            self._pose = _pose(interface, values)
        self.logic.observation.receive(values, now, stamp_age=self._age(stamp))
        if self._is_waiting:
            self._answer()

    def _on_command(self, message: Message) -> None:
        interface, now = self.robot.interface, self.now()
        try:
            values = interface.command_to_array(message)
        except AdapterError as error:
            self.counters.refused_commands += 1
            self.logic.command.refuse(str(error), now)
            stamp = None
        else:
            stamp = interface.stamp_of(message)
            self.logic.command.receive(values, now, stamp_age=self._age(stamp))
        self._command_stamp = stamp
        self._answer()

    def _answer(self) -> None:
        """Answer the newest command, unless its observation is still on the way in lock-step."""
        if self._is_steady:
            if self._answers >= _ANSWERS_PER_TURN:
                self._is_owed = True
                return
            self._answers += 1
        else:
            asked, seen = self._command_stamp, self._observed_stamp
            self._is_waiting = asked is not None and (seen is None or seen < asked)
            if self._is_waiting:
                return
        self.send()

    def _on_timer(self) -> None:
        is_due = self._answers == 0 or self._is_owed
        self._answers, self._is_owed = 0, False
        if is_due:
            self.send()

    def _on_estop(self, message: Message) -> None:
        self.logic.estop.hear(pressed=message.data, now=self.now())
        if message.data and self._is_steady:
            self.send()

    def _age(self, stamp: int | None) -> float | None:
        if stamp is None:
            return None
        return float(self._node.get_clock().now().nanoseconds - stamp) / _SECOND

    def _stamp(self, output: Output) -> int:
        """Return the stamp of the command that is answered; of this instant for a stop."""
        is_answer = output.state in (State.NOMINAL, State.MODIFIED) or not self._is_steady
        if is_answer and self._command_stamp is not None:
            return self._command_stamp
        return int(self._node.get_clock().now().nanoseconds)

    def _show_and_report(self) -> None:
        """Publish what is due, at most one of the two.

        Just after an output nothing waits; a timer of its own would delay the next command.
        """
        now = time.monotonic()
        if now >= self._report_due:
            self._report_due = now + _REPORT_S
            self.report()
        elif now >= self._show_due:
            self._show_due = now + 1.0 / self._values["margins_hz"]
            self._show()

    def _announce(self, output: Output) -> None:
        status = self._status(output)
        self._interventions.publish(status)
        log = self._node.get_logger()
        if status.level == OK:
            log.info(status.message)
        else:  # a line of its own: rclpy refuses two severities from one
            log.warning(status.message)
        stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(make_report(stamp, [status]))

    def _status(self, output: Output) -> DiagnosticStatus:
        name = self._node.get_name()
        return guard_reports.intervention(
            name, self._values["robot"], output, self._figures(), is_stuck=self._is_stuck
        )

    def _figures(self) -> dict[str, object]:
        now, logic, counters = self.now(), self.logic, self.counters
        median, p99 = self.filter.times.median_and_p99()
        return {
            "claim": self.loaded.safeguard.claim,
            "decided_by": self.decided_by,
            "rate_hz": self._values["rate_hz"],
            "command_age_s": logic.command.age(now),
            "observation_age_s": logic.observation.age(now),
            "solve_median_s": median,
            "solve_p99_s": p99,
            "over_budget": self.filter.failures,
            "filter_failure": self.filter.failure,
            "outputs": counters.outputs,
            "modified": counters.modified,
            "infeasible": counters.infeasible,
            "refused_commands": counters.refused_commands,
            "refused_observations": counters.refused_observations,
            "refused_transitions": counters.refused_transitions,
            "limit_shares": list(self._values["limit_shares"]),
            "spec_digest": f"{self.robot.spec.digest():08x}",
        }

    def _show(self) -> None:
        """Publish margins and markers."""
        observation, output = self.logic.observation.values, self._last
        if observation is None or output is None or output.decision is None:
            return
        margins = self.loaded.margins(observation, output.decision).tolist()
        self._margins.publish(guard_reports.margins(self.loaded.labels, margins))
        proposed = self.logic.command.values
        interface = self.robot.interface
        if not isinstance(interface, BaseInterface) or proposed is None:
            return
        self._markers.publish(
            guard_reports.markers(
                to_time(self._observed_stamp or 0),
                interface.odometry_frame_id,
                self._pose,
                proposed=proposed[0].tolist(),
                applied=output.decision.action[0].tolist(),
                discs=self.loaded.discs,
            )
        )


def _pose(interface: BaseInterface, values: Array) -> Float64[np.ndarray, "3"]:
    """Return x, y [m] and heading [rad] of an observation; zero for what it does not hold."""
    names = [signal.name for signal in interface.spec.observation]
    known = dict(zip(names, values.tolist(), strict=True))
    heading = np.arctan2(known.get("heading_sin", 0.0), known.get("heading_cos", 1.0))
    return np.array([known.get("x", 0.0), known.get("y", 0.0), known.get("heading", heading)])

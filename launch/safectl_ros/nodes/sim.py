"""`sim_node`: any Gymnasium environment as a ROS robot, the last link of the chain.

Topics: the robot's command and state by its kind, `observation` and, where known, `model_state`,
`/clock`, `/diagnostics`, and the simulator's own account: `~/violation` (cost of the step, number
of steps with a cost so far; published on each such step and kept for late readers) and `~/outcome`
(reward, cost, terminated, truncated; on each step). Service: `~/reset` restarts the episode; a
parameter `seed` that was set before seeds it, and the answer's message is the stamp of the first
state [ns].

In real time it steps by a timer with the newest command and stops, that is, applies zero, when the
last one is older than three periods of `command_rate_hz`, and at once on one that it refuses. In
lock-step it steps once for each command that carries the stamp of the present state or a later
one, or none;
while nothing happens it repeats the state, so that a node that comes late can answer.
"""

import sys
import time

import numpy as np
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from safectl_ros.adapters import KINDS
from safectl_ros.adapters.interface import Array
from safectl_ros.adapters.stamps import to_time
from safectl_ros.adapters.vector import numbers_to_message
from safectl_ros.diagnostics import ERROR, OK, WARN, Finding, Reporter
from safectl_ros.last_link import LastLink, follow
from safectl_ros.parameters import Parameter, declare
from safectl_ros.process import Message, spin_node
from safectl_ros.qos import COMMAND, DIAGNOSTICS, LATCHED, STATE, deadline_s, watched_command
from safectl_ros.robot import Outcome, SimulatedRobot, make_env

_GO_ON = -1  # the seed that keeps the generator
_REPEAT_S = 0.2

PARAMETERS = (
    Parameter("env_id", "safectl/PointHazard-v0", "Gymnasium environment", read_only=True),
    Parameter("env_kwargs", "", "its keyword arguments, a YAML mapping", read_only=True),
    Parameter("kind", "vector", "messages of the robot", choices=KINDS, read_only=True),
    Parameter("use_stamped", True, "commands with a header", read_only=True),
    Parameter(
        "mode", "realtime", "how time passes", choices=("realtime", "lockstep"), read_only=True
    ),
    Parameter("rate_factor", 1.0, "simulated over real time [1]", 0.01, 100.0, read_only=True),
    Parameter("seed", _GO_ON, "seed of the next reset; -1 goes on", low=_GO_ON, high=2**31 - 1),
    Parameter(
        "command_rate_hz",
        20.0,
        "lowest rate of commands; without one for three periods the robot stops [Hz]",
        low=1.0,
        high=500.0,
        read_only=True,
    ),
)


class SimNode(Node):
    """The node; see the module."""

    def __init__(self, context: Context | None = None) -> None:
        super().__init__("sim", context=context)
        values = declare(self, PARAMETERS)
        self._is_lockstep = values["mode"] == "lockstep"
        env = make_env(values["env_id"], values["env_kwargs"])
        self._robot = SimulatedRobot(env, values["kind"], is_stamped=values["use_stamped"])
        self._link = LastLink(self._robot.interface.spec.nu, deadline_s(values["command_rate_hz"]))
        self._env_id, self._reported = values["env_id"], ""
        self._repeated_ns = 0
        self._seed: int | None = values["seed"] if values["seed"] != _GO_ON else None
        self.add_post_set_parameters_callback(self._on_parameters)
        self._advertise()
        self._subscribe(values["command_rate_hz"])
        self.create_service(Trigger, "~/reset", self._on_reset)
        period_s = self._robot.interface.spec.period / values["rate_factor"]
        wall = Clock(clock_type=ClockType.STEADY_TIME)
        if self._is_lockstep:
            self.create_timer(_REPEAT_S, self._repeat, clock=wall)
        else:
            self.create_timer(period_s, self._tick, clock=wall)
        self._report_violations(0.0)
        self._restart()

    @property
    def robot(self) -> SimulatedRobot:
        """The simulated robot, for tests in the same process."""
        return self._robot

    def destroy_node(self) -> None:
        """Destroy the node and close the environment."""
        super().destroy_node()
        if hasattr(self, "_robot"):  # Kilted destroys a node whose start has failed, too
            self._robot.close()

    def _advertise(self) -> None:
        interface = self._robot.interface
        self._clock_out = self.create_publisher(ClockMessage, "/clock", DIAGNOSTICS)
        self._violation_out = self.create_publisher(Float64MultiArray, "~/violation", LATCHED)
        self._reporter = Reporter(
            self,
            "robot",
            hardware_id=self._env_id,
            look=self._find,
            now=lambda: to_time(self._robot.stamp_ns),
        )
        self._outcome_out = self.create_publisher(Float64MultiArray, "~/outcome", DIAGNOSTICS)
        self._model_out = self.create_publisher(Float64MultiArray, "model_state", STATE)
        self._observation_out = self.create_publisher(Float64MultiArray, "observation", STATE)
        self._state_out = (
            None
            if interface.state_topic == "observation"
            else self.create_publisher(interface.state_type, interface.state_topic, STATE)
        )

    def _subscribe(self, rate_hz: float) -> None:
        qos = COMMAND if self._is_lockstep else watched_command(rate_hz)
        follow(self, self._robot.interface, self._link, qos, self._on_command)

    def _on_command(self, command: Array, stamp_ns: int | None) -> None:
        if self._is_lockstep and (stamp_ns is None or stamp_ns >= self._robot.stamp_ns):
            self._advance(command)

    def _tick(self) -> None:
        self._advance(self._link.command(time.monotonic()))

    def _advance(self, command: Array) -> None:
        if self._robot.is_over:
            self._restart()
            return
        outcome = self._robot.step(command)
        if outcome.cost > 0.0:
            self._report_violations(outcome.cost)
        self._publish(outcome)

    def _restart(self) -> None:
        self._robot.restart(self._seed)
        self._seed = None
        self._publish(None)

    def _publish(self, outcome: Outcome | None) -> None:
        """Publish everything of an instant, the robot's state last: it is what others answer."""
        robot = self._robot
        self._clock_out.publish(ClockMessage(clock=to_time(robot.stamp_ns)))
        if outcome is not None:
            row = [outcome.reward, outcome.cost, outcome.terminated, outcome.truncated]
            self._outcome_out.publish(numbers_to_message(np.array(row, float), robot.stamp_ns))
        self._publish_state()
        if self._link.reason != self._reported:
            self._reporter.report()

    def _publish_state(self) -> None:
        robot = self._robot
        if (model_state := robot.model_state) is not None:
            self._model_out.publish(numbers_to_message(model_state, robot.stamp_ns))
        observation = robot.vector.array_to_state(robot.observation, robot.stamp_ns)
        self._observation_out.publish(observation)
        if self._state_out is not None:
            state = robot.interface.array_to_state(robot.state, robot.stamp_ns)
            self._state_out.publish(state)

    def _repeat(self) -> None:
        if self._repeated_ns == self._robot.stamp_ns:
            self._publish_state()
        self._repeated_ns = self._robot.stamp_ns

    def _report_violations(self, cost: float) -> None:
        row = np.array([cost, self._robot.violations], float)
        self._violation_out.publish(numbers_to_message(row, self._robot.stamp_ns))

    def _find(self) -> Finding:
        reason = self._reported = self._link.reason
        values = {
            "mode": "lockstep" if self._is_lockstep else "realtime",
            "deadline_s": self._link.deadline_s,
            "refused_commands": self._link.refused,
            "violations": self._robot.violations,
            "simulated_time_s": self._robot.stamp_ns / 1e9,
        }
        level = ERROR if reason.startswith("refused") else WARN if reason else OK
        return Finding(level, f"stopped: {reason}" if reason else "follows commands", values)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._link.forget()
        self._restart()
        response.success, response.message = True, str(self._robot.stamp_ns)
        return response

    def _on_parameters(self, changes: list[Message]) -> None:
        for change in changes:
            if change.name == "seed":
                self._seed = change.value if change.value != _GO_ON else None


def main() -> int:
    """Run the node."""
    return spin_node(SimNode)


if __name__ == "__main__":
    sys.exit(main())

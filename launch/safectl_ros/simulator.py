"""What a simulator node offers beyond a robot: a seeded reset and its own account of each step."""

from collections import deque
from typing import NamedTuple

import numpy as np
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from safectl.errors import BridgeError
from safectl_ros.adapters import Array
from safectl_ros.adapters.vector import label_stamp
from safectl_ros.link import RobotLink
from safectl_ros.process import Message
from safectl_ros.qos import DIAGNOSTICS


class Account(NamedTuple):
    """Sums over the steps since the last account, and whether one of them ended the episode."""

    reward: float
    cost: float
    terminated: bool
    truncated: bool


class SimulatorClient:
    """The outcome topic and the reset service of one simulator node.

    Args:
        link: The robot's topics; its condition is notified of outcomes too.
        name: Name of the node.
    """

    def __init__(self, link: RobotLink, name: str) -> None:
        self._link = link
        self._outcomes: deque[tuple[int, Array]] = deque()
        node = link.thread.node
        # Before the clients: when the node answers them, it has also seen this reader.
        node.create_subscription(
            Float64MultiArray, f"{name}/outcome", self._on_outcome, DIAGNOSTICS
        )
        self._reset = node.create_client(Trigger, f"{name}/reset")
        self._seed = node.create_client(SetParameters, f"{name}/set_parameters")

    def reset(self, seed: int | None, timeout_s: float) -> int:
        """Restart the episode and return the stamp of its first state [ns].

        Args:
            seed: Of this and the following episodes; without one, the generator goes on.
            timeout_s: Longest wait for each of two answers [s].

        Raises:
            BridgeError: If the node does not answer in time or refuses the seed, or is no sim_node.
        """
        thread = self._link.thread
        try:
            if seed is not None:
                value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
                change = Parameter(name="seed", value=value)
                request = SetParameters.Request(parameters=[change])
                (result,) = thread.call(self._seed, request, timeout_s).results
                if not result.successful:
                    raise BridgeError(f"the simulator refuses the seed {seed}: {result.reason}")
            answer = thread.call(self._reset, Trigger.Request(), timeout_s)
        except TimeoutError as error:
            raise BridgeError(f"the simulator does not reset: {error}; start sim_node") from error
        if not (answer.success and answer.message.isdigit()):
            raise BridgeError(
                f"the reset answers {answer.message!r}, expected the stamp of the first state; "
                "it must be the service of sim_node"
            )
        return int(answer.message)

    def has_reached(self, stamp_ns: int) -> bool:
        """Return whether the outcome of an instant or a later one has arrived."""
        return bool(self._outcomes) and self._outcomes[-1][0] >= stamp_ns

    def take(self, until_ns: int) -> Account:
        """Add up the outcomes up to an instant and forget them."""
        with self._link.changed:
            rows = []
            while self._outcomes and self._outcomes[0][0] <= until_ns:
                rows.append(self._outcomes.popleft()[1])
        if not rows:
            return Account(0.0, 0.0, terminated=False, truncated=False)
        reward, cost, terminated, truncated = np.sum(rows, axis=0).tolist()
        return Account(reward, cost, terminated=terminated > 0.0, truncated=truncated > 0.0)

    def _on_outcome(self, message: Message) -> None:
        stamp_ns = label_stamp(message)
        if stamp_ns is None or len(message.data) != len(Account._fields):
            return
        with self._link.changed:
            self._outcomes.append((stamp_ns, np.array(message.data)))
            self._link.changed.notify_all()

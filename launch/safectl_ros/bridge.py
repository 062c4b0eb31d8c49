"""A robot on ROS topics as a bridge of the control loop."""

import logging
import time

import numpy as np
import torch

from safectl.errors import BridgeError, ShapeError
from safectl.spec import Spec
from safectl.types import Decision, Reading, Sent
from safectl_ros.adapters import Interface
from safectl_ros.link import RobotLink
from safectl_ros.qos import SENSOR

_LOG = logging.getLogger(__name__)


class RosBridge:
    """A bridge over topics, in place of the guard node: it writes to the topic of safe commands.

    Readings are stamped by the steady clock of this machine when they arrive, so that they compare
    with `MonotonicClock` and a robot with a wrong clock is not believed. The last limit is a clip
    to the bounds of the specification. Stopping is one command of zeros; that the robot also stops
    when this process dies is up to the robot, which must watch the deadline of the topic.

    Args:
        interface: Messages of the robot.
        timeout_s: How long entering waits for the robot [s].
        domain_id: DDS domain; that of `ROS_DOMAIN_ID` by default.
    """

    def __init__(
        self, interface: Interface, *, timeout_s: float = 15.0, domain_id: int | None = None
    ) -> None:
        self._interface, self._timeout_s, self._domain_id = interface, timeout_s, domain_id
        spec = interface.spec
        self._low, self._high = np.array(spec.action_low), np.array(spec.action_high)
        self._link: RobotLink | None = None

    @property
    def spec(self) -> Spec:
        """Signals of the robot."""
        return self._interface.spec

    def read(self) -> Reading:
        """Return the newest state.

        Raises:
            BridgeError: If not entered, or the newest message could not be read.
        """
        link = self._connected()
        newest = link.newest
        if link.problem or newest is None:
            raise BridgeError(f"no state of the robot: {link.problem or 'nothing has arrived'}")
        return Reading(torch.as_tensor(newest.state).float(), newest.arrival)

    def write(self, decision: Decision, /) -> Sent:
        """Publish the decided action, clipped to the limits of the robot.

        Raises:
            ShapeError: If the decision is not for one row.
            BridgeError: If not entered, or the action is not finite.
        """
        link = self._connected()
        if decision.action.shape != (1, self.spec.nu):
            raise ShapeError("action", expected=(1, self.spec.nu), got=decision.action.shape)
        action = decision.action[0].detach().double().cpu().numpy()
        if not np.isfinite(action).all():
            raise BridgeError(
                "the decided action is not finite; the safeguard is broken, stop here"
            )
        sent = np.clip(action, self._low, self._high)
        link.send(sent)
        return Sent(torch.as_tensor(sent).float(), time.monotonic())

    def stop(self) -> None:
        """Publish one command of zeros, within the limits; does nothing where not entered."""
        if self._link is None:
            return
        try:
            self._link.send(np.clip(np.zeros(self.spec.nu), self._low, self._high))
        except Exception:  # noqa: BLE001  stopping never raises, whatever the middleware does
            _LOG.warning("the stop command could not be published", exc_info=True)

    def __enter__(self) -> "RosBridge":
        """Join the graph, wait for the robot, then stop it.

        Raises:
            BridgeError: If no state arrives or nobody listens to commands in time.
        """
        self._link = RobotLink(
            self._interface,
            name="safectl_bridge",
            command_topic=self._interface.safe_topic,
            state_qos=SENSOR,
            domain_id=self._domain_id,
        )
        try:
            self._await_robot(self._link)
        except BaseException:
            self._link.close()
            self._link = None
            raise
        self.stop()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _connected(self) -> RobotLink:
        if self._link is None:
            raise BridgeError("the bridge is not entered; use it in a `with` statement")
        return self._link

    def _await_robot(self, link: RobotLink) -> None:
        limit = time.monotonic() + self._timeout_s
        if link.wait(lambda _: True, self._timeout_s) is None:
            reason = link.problem or "check that it runs, its domain and its quality of service"
            raise BridgeError(
                f"no message on {self._interface.state_topic} within {self._timeout_s:g} s: "
                f"{reason}"
            )
        if not link.await_listener(max(0.0, limit - time.monotonic())):
            raise BridgeError(
                f"nobody listens to {self._interface.safe_topic} after {self._timeout_s:g} s: "
                "start the robot, or remap its command topic"
            )

"""`guard_node`: the last node before the robot; it filters commands and stops on every fault.

A managed node. What it sends and why is in `safectl_ros.guard_logic`, when in
`safectl_ros.guard_runtime`. The publisher of the safe command is a plain one: while the node is
inactive it sends zeros at full rate.

Services: `~/reset` leaves a latched stop, refused while the cause persists; `~/enable` with false
stops until the reset, with true is refused, because there is no bypass.
"""

import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import SetBool, Trigger

from safectl.errors import ConfigError, SafectlError
from safectl_ros.guard_parameters import PARAMETERS, settings_from, why_looser
from safectl_ros.guard_runtime import GuardRuntime
from safectl_ros.guard_safeguard import describe
from safectl_ros.parameters import declare
from safectl_ros.process import Message, spin_node
from safectl_ros.robot_file import limited


class GuardNode(LifecycleNode):
    """The node; see the module.

    Raises:
        ConfigError: If a parameter cannot be used or, with `autostart`, the configuration fails.
    """

    def __init__(self, context: Context | None = None) -> None:
        super().__init__("guard", context=context)
        self._values = declare(self, PARAMETERS)
        self._runtime: GuardRuntime | None = None
        self._is_active = False
        self._problem = self._standing = ""
        self.add_on_set_parameters_callback(self._on_change)
        self.add_post_set_parameters_callback(self._after_change)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/enable", self._on_enable)
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = partial(self._on_transition, service.callback)
        if self._values["autostart"]:
            if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                raise ConfigError(f"guard {self.get_name()}", self._problem)
            self.trigger_activate()

    @property
    def runtime(self) -> GuardRuntime | None:
        """What runs between configure and clean-up, for tests in the same process."""
        return self._runtime

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load robot and safeguard; a failure is one line in the log and changes nothing."""
        try:
            self._runtime = GuardRuntime(self, self._values)
        except Exception as error:  # noqa: BLE001  rclpy would not tell what it is
            self._problem = str(error) if isinstance(error, SafectlError) else describe(error)
            self.get_logger().error(self._problem)
            return TransitionCallbackReturn.FAILURE
        if self._standing:
            self._runtime.logic.disable(self._standing)
        gc.collect()
        gc.freeze()  # what is there now stays; the collector need not look at it in the loop
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to listen to commands."""
        runtime = self._configured()
        runtime.logic.activate(runtime.now())
        self._is_active = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send zeros from now on."""
        self._configured().logic.deactivate()
        self._is_active = False
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send zeros for a while, then nothing."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send zeros for a while, then nothing."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send zeros for a while, then nothing; the node can be configured again."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Destroy the node; zeros go out first where the context still allows it."""
        if hasattr(self, "_runtime"):  # Kilted destroys a node whose start has failed, too
            self._close()
        super().destroy_node()

    def _configured(self) -> GuardRuntime:
        assert self._runtime is not None, "the lifecycle configures first"
        return self._runtime

    def _close(self) -> None:
        self._is_active = False
        if self._runtime is not None:
            runtime, self._runtime = self._runtime, None
            self._standing = runtime.logic.standing
            runtime.close()
            gc.unfreeze()  # else Kilted's DDS is never destroyed and leaves its shared memory

    def _on_transition(
        self, change: Callable[..., Message], request: Message, response: Message
    ) -> Message:
        """Refuse a transition that the present state does not have; the service of Jazzy raises."""
        try:
            response = change(request, response)
        except RuntimeError as error:  # rclpy's RCLError, which it does not export
            wanted = request.transition.label or request.transition.id
            self.get_logger().error(f"transition {wanted} is refused: {error}")
            response.success = False
        if not response.success and self._runtime is not None:
            self._runtime.counters.refused_transitions += 1
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._runtime is None:
            response.success, response.message = False, "the guard is not configured"
            return response
        reason = self._runtime.logic.reset(self._runtime.now())
        response.success, response.message = not reason, reason or "reset"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data:
            response.success = False
            response.message = "there is no bypass; a stop by this service ends with ~/reset"
        elif self._runtime is None:
            response.success, response.message = False, "the guard is not configured"
        else:
            self._runtime.logic.disable("stopped by ~/enable")
            response.success, response.message = True, "stopped; ~/reset goes on"
        return response

    def _on_change(self, changes: list[RosParameter]) -> SetParametersResult:
        """Refuse what does not fit together and, while active, what loosens."""
        wanted = self._values | {change.name: change.value for change in changes}
        try:
            settings_from(wanted)
            if self._runtime is not None:
                limited(self._runtime.robot.spec, list(wanted["limit_shares"]))
        except SafectlError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for change in changes if self._is_active else ():
            if reason := why_looser(change.name, self._values.get(change.name), change.value):
                return SetParametersResult(successful=False, reason=reason)
        if self._runtime is not None:
            try:
                self._runtime.prepare(wanted["limit_shares"])
            except SafectlError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _after_change(self, changes: list[RosParameter]) -> None:
        new: dict[str, Any] = {
            change.name: change.value for change in changes if change.name in self._values
        }
        self._values = self._values | new
        if self._runtime is not None and new:
            self._runtime.change(self._values)
            self.get_logger().info(f"changed: {new}")


def main() -> int:
    """Run the node."""
    torch.set_num_threads(1)
    return spin_node(GuardNode)


if __name__ == "__main__":
    sys.exit(main())

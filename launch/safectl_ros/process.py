"""A node as a process, and a node in a thread beside code that must wait.

One single-threaded executor each: rclpy's multi-threaded one loses seconds and its events executor
hangs (ros2/rclpy issues 1223, 1388, 1452).
"""

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import rclpy
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from safectl.errors import SafectlError

Message: TypeAlias = Any
"""A ROS message, request or response; rosidl generates them without type annotations."""


def spin_node(make_node: Callable[[], Node]) -> int:
    """Run one node until SIGINT or SIGTERM and return the exit status of the process.

    Args:
        make_node: Builds the node in the default context, which reads the process's arguments.

    Returns:
        0 after a signal, 1 with one line on standard error where the node cannot be built or a
        callback raises one of our errors.
    """
    rclpy.init()
    node: Node | None = None
    try:
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):  # which of the two comes varies
        pass
    except SafectlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


class RosThread:
    """A node in a context of its own, served by one daemon thread until `close`.

    For foreground code that waits: tests, environments, bridges. A context manager.

    Args:
        make_node: Builds the node in the given context.
        domain_id: DDS domain; that of `ROS_DOMAIN_ID` by default.
        arguments: As on a command line, for example `["--ros-args", "-r", "action:=action_safe"]`.

    Attributes:
        context: The context, for further nodes.
        node: The node.
    """

    def __init__(
        self,
        make_node: Callable[[Context], Node],
        *,
        domain_id: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id, args=list(arguments))
        try:
            self.node = make_node(self.context)
        except BaseException:
            rclpy.try_shutdown(context=self.context)
            raise
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name=self.node.get_name(), daemon=True)
        self._thread.start()

    def call(self, client: Client, request: Message, timeout_s: float) -> Message:
        """Call a service of another process and wait for the answer.

        Raises:
            TimeoutError: If the service does not appear or does not answer within `timeout_s`.
        """
        if not client.wait_for_service(timeout_s):
            raise TimeoutError(f"no service {client.srv_name} within {timeout_s:g} s")
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_s):
            client.remove_pending_request(future)
            raise TimeoutError(f"{client.srv_name} has not answered within {timeout_s:g} s")
        return future.result()

    def close(self) -> None:
        """End the thread, then destroy the node; harmless when repeated."""
        if not self._thread.is_alive() and not self.context.ok():
            return
        rclpy.try_shutdown(context=self.context)  # wakes the executor
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()

    def __enter__(self) -> "RosThread":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

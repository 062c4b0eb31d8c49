"""A node as a process, and a node in a thread beside code that must wait.

One single-threaded executor each: rclpy's multi-threaded one loses seconds and its events executor
hangs (ros2/rclpy issues 1223, 1388, 1452). It always runs in a thread of its own, and rclpy's
signal handlers are not used: they invalidate the context before a node can publish a last zero.
"""

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import rclpy
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from safectl.errors import SafectlError

Message: TypeAlias = Any
"""A ROS message, request or response; rosidl generates them without type annotations."""


def spin_node(make_node: Callable[[], Node]) -> int:
    """Run one node until SIGINT or SIGTERM and return the exit status of the process.

    The context is still valid while the node is destroyed, so that `destroy_node` can publish.

    Args:
        make_node: Builds the node in the default context, which reads the process's arguments.

    Returns:
        0 after a signal, 1 with one line on standard error where the arguments cannot be used, the
        node cannot be built or a callback raises one of our errors.
    """
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # rclpy's errors, which it does not export
        sys.stderr.write(f"error: command line: {str(error).splitlines()[0]}\n")
        return 1
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        node = make_node()
        spinner = _Spinner(node, rclpy.get_default_context(), ended.set)
        try:
            ended.wait()
        finally:
            spinner.close()
            node.destroy_node()
        if spinner.error is not None:
            raise spinner.error
    except SafectlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
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
        self._spinner = _Spinner(self.node, self.context, lambda: None)

    @property
    def is_alive(self) -> bool:
        """Whether callbacks are served: not closed, and none has raised."""
        return self._spinner.is_alive

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
        """End the thread, then destroy the node; harmless when repeated.

        Raises:
            Exception: What a callback has raised, which ended the thread.
        """
        if not self.context.ok():
            return
        self._spinner.close()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
        if self._spinner.error is not None:
            raise self._spinner.error

    def __enter__(self) -> "RosThread":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Spinner:
    """A thread that serves a node's callbacks until `close` or until one raises."""

    def __init__(self, node: Node, context: Context, on_error: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self._on_error = on_error
        self._ended = threading.Event()
        self._end = node.create_guard_condition(lambda: None)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, name=node.get_name(), daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Let the running callback finish, then end the thread."""
        self._ended.set()
        self._end.trigger()  # `wake` would not do: without work the executor waits on
        self._thread.join()
        self._executor.shutdown()

    def _spin(self) -> None:
        try:
            while not self._ended.is_set():
                self._executor.spin_once()
        except Exception as error:  # noqa: BLE001  handed to the thread that waits, which raises it
            self.error = error
            self._on_error()

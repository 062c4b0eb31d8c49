"""Nodes in threads and as processes."""

import signal
import subprocess
import sys

import pytest
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from safectl_ros.process import RosThread
from safectl_ros.qos import LATCHED
from tests.ros_graph import DISCOVERY_S, Inbox

PROGRAM = """
import sys
from rclpy.node import Node
from std_msgs.msg import Bool
from safectl.errors import ConfigError
from safectl_ros.process import spin_node
from safectl_ros.qos import LATCHED

def make():
    if "refuse" in sys.argv:
        raise ConfigError("robot", "has no wheels")
    node = Node("child")
    node.create_publisher(Bool, "alive", LATCHED).publish(Bool(data=True))
    return node

sys.exit(spin_node(make))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_ends_with_status_0_on_a_signal(probe, number):
    alive = Inbox(probe.node, Bool, "alive", LATCHED)
    child = subprocess.Popen([sys.executable, "-c", PROGRAM])
    try:
        alive.wait()
        child.send_signal(number)
        assert child.wait(DISCOVERY_S) == 0
    finally:
        child.kill()
        child.wait()


def test_a_node_that_cannot_be_built_is_one_line_and_status_1(ros_domain):
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, "refuse"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert answer.stderr == "error: robot: has no wheels\n"


def test_a_call_returns_the_answer_of_another_context(probe):
    def answer(request, response):
        response.success, response.message = True, "done"
        return response

    with RosThread(lambda context: Node("server", context=context)) as server:
        server.node.create_service(Trigger, "go", answer)
        client = probe.node.create_client(Trigger, "go")
        result = probe.call(client, Trigger.Request(), DISCOVERY_S)
    assert (result.success, result.message) == (True, "done")


def test_a_call_without_a_server_ends_in_time(probe):
    client = probe.node.create_client(Trigger, "nobody")
    with pytest.raises(TimeoutError, match=r"no service nobody within 0\.1 s"):
        probe.call(client, Trigger.Request(), 0.1)


def test_a_thread_can_be_closed_twice_and_many_live_after_each_other(ros_domain):
    for _ in range(5):
        thread = RosThread(lambda context: Node("short", context=context))
        thread.close()
        thread.close()
        assert not thread.context.ok()

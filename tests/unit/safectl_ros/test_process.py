"""Nodes in threads and as processes."""

import signal
import subprocess
import sys

import pytest
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from safectl_ros.process import RosThread, spin_node
from safectl_ros.qos import LATCHED
from tests.ros_graph import DISCOVERY_S, START_S, Inbox
from tests.waiting import wait_until

PROGRAM = """
import sys
from rclpy.duration import Duration
from rclpy.node import Node
from std_msgs.msg import Bool
from safectl.errors import ConfigError
from safectl_ros.process import spin_node
from safectl_ros.qos import LATCHED

def make():
    if "refuse" in sys.argv:
        raise ConfigError("robot", "has no wheels")
    node = Node("child")
    publisher = node.create_publisher(Bool, "alive", LATCHED)
    publisher.publish(Bool(data=True))
    if "raise" in sys.argv:
        def fail():
            raise ConfigError("robot", "lost a wheel")
        node.create_timer(0.01, fail)
    destroy = node.destroy_node
    def say_goodbye():
        publisher.publish(Bool(data=False))
        publisher.wait_for_all_acked(Duration(seconds=5))
        destroy()
    node.destroy_node = say_goodbye
    return node

sys.exit(spin_node(make))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_ends_with_status_0_on_a_signal(probe, number):
    alive = Inbox(probe.node, Bool, "alive", LATCHED)
    child = subprocess.Popen([sys.executable, "-c", PROGRAM])
    try:
        alive.wait(timeout_s=START_S)
        child.send_signal(number)
        assert child.wait(DISCOVERY_S) == 0
        alive.wait(lambda got: got[-1].data is False)  # it can publish while it is destroyed
    finally:
        child.kill()
        child.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "line"),
    [("refuse", "error: robot: has no wheels\n"), ("raise", "error: robot: lost a wheel\n")],
)
def test_an_error_of_ours_is_one_line_and_status_1(ros_domain, word, line):
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, word], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert answer.stderr == line


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


def test_an_error_in_a_callback_is_raised_where_the_thread_is_closed(ros_domain):
    def fail():
        raise ArithmeticError("in a timer")

    thread = RosThread(lambda context: Node("broken", context=context))
    thread.node.create_timer(0.001, fail)
    wait_until(lambda: not thread.is_alive)
    with pytest.raises(ArithmeticError, match="in a timer"):
        thread.close()


@pytest.mark.parametrize(
    "words", [["--params-file", "/missing.yaml"], ["-p", "bad"], ["-r", "a b:=c"]]
)
def test_arguments_that_cannot_be_used_are_one_clear_error(monkeypatch, capfd, words):
    monkeypatch.setattr(sys, "argv", ["node", "--ros-args", *words])
    assert spin_node(lambda: pytest.fail("no node is made")) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: command line: ")


WITHOUT_ROS = """
import runpy, sys
sys.modules.update(rclpy=None, lifecycle_msgs=None)
runpy.run_module(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize("module", ["safectl_ros.nodes.guard", "safectl_ros.cli"])
def test_without_ros_a_program_says_what_is_missing(module):
    child = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROS, module], capture_output=True, text=True, check=False
    )
    assert child.returncode == 1
    assert child.stderr.startswith("error: ")
    assert "Traceback" not in child.stderr
    assert "extra 'ros'" in child.stderr

"""`hil.launch.xml`: guard, serial bridge and an emulated board on a pseudo-terminal."""

import numpy as np
import pytest
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from safectl_ros.adapters.vector import numbers_to_message
from safectl_ros.process import RosThread
from safectl_ros.qos import COMMAND, SENSOR
from tests.ros_graph import Inbox
from tests.waiting import wait_until

START_S = 90.0  # firmware is compiled, and processes that import torch are started


@pytest.mark.slow
def test_an_emulated_board_follows_guarded_commands_and_stops_in_silence(launched, tmp_path):
    port = tmp_path / "board"
    running = launched("hil.launch.xml", port=port)
    with RosThread(lambda context: Node("driver", context=context)) as thread:
        states = Inbox(thread.node, Float64MultiArray, "observation", SENSOR)
        commands = thread.node.create_publisher(Float64MultiArray, "action", COMMAND)
        running.wait_for_output("board", f"mps2-an386 on {port}", timeout_s=START_S)
        states.wait(timeout_s=START_S)

        def cruises():
            message = numbers_to_message(np.array([5.0, -0.5]), 0)
            message.layout.dim[0].label = ""
            commands.publish(message)
            if len(states.messages) < 6:
                return False
            x, y = np.diff([tuple(one.data) for one in states.messages[-6:]], axis=0).T
            return bool((x > 0.0).all()) and np.allclose(y, -0.5 * x, rtol=0.05, atol=1e-4)

        # 5 m/s goes through as 1 m/s: while it drives on, y falls half as fast as x grows.
        wait_until(cruises, START_S, poll_s=0.02)
        moved = np.diff([one.data[0] for one in states.messages])
        assert moved.max() < 4.0 * moved[-1], "no step at 5 m/s; lost messages join some"

        def rests(messages):
            newest = [tuple(message.data) for message in messages[-5:]]
            return len(messages) > 5 and len(set(newest)) == 1

        states.wait(rests, timeout_s=START_S)
    assert running.stop() == 0
    assert not port.is_symlink()

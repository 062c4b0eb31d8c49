"""A robot on topics as a bridge of the control loop, against the simulator node."""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from std_msgs.msg import Float64MultiArray

from safectl.errors import BridgeError, LoopStopped, ShapeError
from safectl.loop import run_loop
from safectl.safeguards import Clip
from safectl.types import Bridge, Certificate, Decision
from safectl_envs import PointHazard
from safectl_ros.adapters import make_interface
from safectl_ros.bridge import RosBridge
from safectl_ros.qos import STATE
from tests.ros_graph import Inbox

POINT = "safectl/PointHazard-v0"
INTERFACE = make_interface("vector", PointHazard().spec)
SPEC = INTERFACE.spec
UNHURRIED = make_interface("vector", replace(SPEC, period=0.25))
"""The same robot with a loop that a loaded machine can keep up with."""

WITHOUT_ROS = """
import sys
sys.modules["std_msgs"] = None
from safectl.errors import MissingExtra
try:
    from safectl_ros.{module} import {name}
except MissingExtra as error:
    sys.exit(str(error))
"""


class Forward:
    """Full speed ahead, and more than the robot can do."""

    def act(self, observation):
        return torch.full((len(observation), 2), 3.0)


def decision(*values):
    row = torch.tensor([values])
    one = torch.zeros(1)
    return Decision(row, Certificate(one.to(torch.int8), one, one, one))


def test_it_is_a_bridge_and_its_spec_needs_no_connection():
    bridge = RosBridge(INTERFACE)
    assert isinstance(bridge, Bridge)
    assert bridge.spec == SPEC
    bridge.stop()


def test_the_loop_drives_a_robot_on_topics_and_stops_it_in_the_end(simulator, probe):
    simulator(POINT, mode="realtime", command_rate_hz=1.0)
    states = Inbox(probe.node, Float64MultiArray, "observation", STATE)
    result = run_loop(RosBridge(UNHURRIED), Forward(), Clip(UNHURRIED.spec), steps=4)
    assert result.corrected == result.steps == 4
    states.wait(lambda messages: any(message.data[0] == 1.0 for message in messages))
    states.wait(lambda messages: messages[-1].data[0] == 0.0)


def test_a_robot_that_falls_silent_stops_the_loop(simulator):
    thread = simulator(POINT, mode="realtime", command_rate_hz=1.0)

    class Cut(Forward):
        calls = 0

        def act(self, observation):
            self.calls += 1
            if self.calls == 3:
                thread.close()
            return super().act(observation)

    with pytest.raises(LoopStopped, match="the newest observation is"):
        run_loop(RosBridge(UNHURRIED), Cut(), Clip(UNHURRIED.spec), steps=50)


def test_readings_are_stamped_with_the_steady_clock_on_arrival(simulator):
    simulator(POINT, mode="realtime")
    before = time.monotonic()
    with RosBridge(INTERFACE) as bridge:
        reading = bridge.read()
    assert before <= reading.stamp <= time.monotonic()
    assert reading.observation.dtype == torch.float32
    assert reading.observation.shape == (SPEC.nx,)


def test_what_is_written_is_clipped_and_what_is_not_finite_is_refused(simulator):
    simulator(POINT, mode="realtime")
    with RosBridge(INTERFACE) as bridge:
        assert bridge.write(decision(9.0, -9.0)).action.tolist() == [1.0, -1.0]
        with pytest.raises(BridgeError, match="not finite"):
            bridge.write(decision(np.nan, 0.0))
        with pytest.raises(ShapeError, match="action"):
            bridge.write(decision(1.0, 0.0, 0.0))


def test_stopping_never_raises_even_when_the_graph_is_gone(simulator):
    simulator(POINT, mode="realtime")
    with RosBridge(INTERFACE) as bridge:
        bridge._link.thread.close()
        bridge.stop()
    bridge.stop()


def test_nobody_there_and_not_entered_are_clear_errors(ros_domain):
    bridge = RosBridge(INTERFACE, timeout_s=0.2)
    with pytest.raises(BridgeError, match=r"no message on observation within 0\.2 s"):
        bridge.__enter__()
    for use in (bridge.read, lambda: bridge.write(decision(0.0, 0.0))):
        with pytest.raises(BridgeError, match="not entered"):
            use()


def test_a_robot_of_another_size_is_named(simulator):
    simulator("Pendulum-v1", mode="realtime")
    with pytest.raises(BridgeError, match=r"holds 3 numbers, expected 36"):
        RosBridge(INTERFACE, timeout_s=1.0).__enter__()


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), [("bridge", "RosBridge"), ("env", "RosEnv")])
def test_without_ros_the_missing_extra_is_named(module, name):
    code = WITHOUT_ROS.format(module=module, name=name)
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "std_msgs is not installed; it belongs to the extra 'ros'" in answer.stderr

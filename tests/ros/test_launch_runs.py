"""Launch files with their switches on, as processes."""

import math
from pathlib import Path

import pytest
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from safectl_ros.process import RosThread
from safectl_ros.qos import COMMAND, LATCHED, SENSOR, STATE
from tests.ros_graph import Inbox

START_S = 90.0  # processes that import torch, on a machine that does other things too
CONFIG = Path(__file__).parents[2] / "launch" / "config"


class Base(Node):
    """A base that reports rest at the origin at 50 Hz."""

    def __init__(self, context):
        super().__init__("base", context=context)
        self._out = self.create_publisher(Odometry, "odom", SENSOR)
        self.create_timer(0.02, self._report)

    def _report(self):
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id = "odom"
        message.header.stamp = self.get_clock().now().to_msg()
        message.pose.pose.orientation.w = 1.0
        self._out.publish(message)


def ahead(folder, action):
    """Write a policy that always does the same and return its file."""
    path = folder / "policy.toml"
    path.write_text(f"kind = 'constant'\naction = {action}\n")
    return path


@pytest.mark.slow
def test_a_policy_drives_the_simulated_robot_through_the_guard(launched, probe, tmp_path):
    policy = ahead(tmp_path, [1.0, 0.0])
    safe = Inbox(probe.node, Float64MultiArray, "action_safe", COMMAND)
    running = launched("sim.launch.xml", policy=True, policy_file=policy)
    safe.wait(lambda messages: messages[-1].data[0] > 0.0, START_S)
    assert running.stop() == 0


@pytest.mark.slow
def test_a_policy_drives_a_base_within_its_limits(launched, probe, tmp_path):
    policy = ahead(tmp_path, [5.0, 0.0])
    safe = Inbox(probe.node, TwistStamped, "cmd_vel_safe", COMMAND)
    with RosThread(Base):
        running = launched(
            "robot.launch.xml",
            robot=CONFIG / "base.toml",
            safeguard=CONFIG / "base_safeguard.toml",
            policy=True,
            policy_file=policy,
            use_estop=False,
            record=False,
        )
        safe.wait(lambda messages: messages[-1].twist.linear.x > 0.1, START_S)
        assert max(message.twist.linear.x for message in safe.messages) <= 0.3 + 1e-6
        assert running.stop() == 0


@pytest.mark.slow
def test_a_planner_leads_the_simulated_robot_and_shows_its_plan(launched, probe, tmp_path):
    planner = tmp_path / "planner.toml"
    planner.write_text(
        "kind = 'pursuit'\ngoal = [1.5, 1.5]\npose = ['state_0', 'state_1', 'state_2']\n"
    )
    safe = Inbox(probe.node, Float64MultiArray, "action_safe", COMMAND)
    plans = Inbox(probe.node, PathMessage, "plan", LATCHED)
    running = launched("plan.launch.xml", planner=planner)
    plans.wait(lambda messages: len(messages[-1].poses) > 1, START_S)
    safe.wait(lambda messages: max(map(abs, messages[-1].data)) > 0.0, START_S)
    assert running.stop() == 0


@pytest.mark.slow
def test_the_shipped_diffusion_model_moves_a_guarded_mass(launched, probe, tmp_path):
    planner = tmp_path / "planner.toml"
    planner.write_text("kind = 'diffuser'\nsteps = 8\n")
    plans = Inbox(probe.node, PathMessage, "plan", LATCHED)
    states = Inbox(probe.node, Float64MultiArray, "model_state", STATE)
    safe = Inbox(probe.node, Float64MultiArray, "action_safe", COMMAND)
    running = launched(
        "plan.launch.xml",
        env="safectl/Maze2dUmaze-v0",
        sees_state=False,
        planner=planner,
        replan_hz=2.0,
        rate_hz=100.0,
    )
    plans.wait(lambda messages: len(messages[-1].poses) == 128, START_S)
    safe.wait(lambda messages: max(map(abs, messages[-1].data)) > 0.0, START_S)
    first = states.wait().data[:2]
    states.wait(lambda messages: math.dist(messages[-1].data[:2], first) > 0.3, START_S)
    assert running.stop() == 0

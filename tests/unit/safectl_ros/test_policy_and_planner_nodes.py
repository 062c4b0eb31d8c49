"""Nodes that propose commands."""

import pathlib
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from safectl.errors import ConfigError
from safectl_ros.adapters.stamps import to_time
from safectl_ros.adapters.vector import label_stamp, numbers_to_message
from safectl_ros.diagnostics import ERROR, OK, WARN
from safectl_ros.nodes.planner import PlannerNode
from safectl_ros.nodes.policy import PolicyNode
from safectl_ros.planners import KINDS as PLANNERS
from safectl_ros.policies import KINDS as POLICIES
from safectl_ros.qos import COMMAND, DIAGNOSTICS, LATCHED, SENSOR, STATE
from tests.ros_graph import Inbox
from tests.unit.safectl_ros.robot_files import ARM, BASE, write
from tests.waiting import wait_until

STAMP = to_time(1234567890)


def publisher(probe, kind, topic, qos):
    publisher = probe.node.create_publisher(kind, topic, qos)
    wait_until(lambda: publisher.get_subscription_count() == 1)
    return publisher


def odometry(x=0.0):
    message = Odometry(child_frame_id="base_link")
    message.header.frame_id, message.header.stamp = "odom", STAMP
    message.pose.pose.position.x, message.pose.pose.orientation.w = x, 1.0
    return message


def test_a_policy_answers_each_observation_with_its_stamp(probe, start, tmp_path):
    policy = write(tmp_path, "policy.toml", "kind = 'constant'\naction = [0.25, -0.5]")
    start(PolicyNode, robot="safectl/PointHazard-v0", policy=policy)
    actions = Inbox(probe.node, Float64MultiArray, "action", COMMAND)
    wait_until(lambda: actions.subscription is not None)
    states = publisher(probe, Float64MultiArray, "observation", STATE)
    wait_until(lambda: probe.node.count_publishers("action") == 1)
    timer = probe.node.create_timer(
        0.05, lambda: states.publish(numbers_to_message(np.zeros(36), 77))
    )
    answer = actions.wait()
    timer.cancel()
    assert list(answer.data) == [0.25, -0.5]
    assert label_stamp(answer) == 77


def test_a_policy_does_not_answer_what_it_cannot_read(probe, start, tmp_path):
    policy = write(tmp_path, "policy.toml", "kind = 'constant'\naction = [0.25, -0.5]")
    start(PolicyNode, robot="safectl/PointHazard-v0", policy=policy)
    actions = Inbox(probe.node, Float64MultiArray, "action", COMMAND)
    states = publisher(probe, Float64MultiArray, "observation", STATE)
    wait_until(lambda: probe.node.count_publishers("action") == 1)
    states.publish(numbers_to_message(np.zeros(35), 76))
    timer = probe.node.create_timer(
        0.05, lambda: states.publish(numbers_to_message(np.zeros(36), 77))
    )
    actions.wait()
    timer.cancel()
    assert {label_stamp(message) for message in actions.messages} == {77}


def reports(probe):
    """Return what waits for a line of the diagnostics and gives level, figures and robot."""
    inbox = Inbox(probe.node, DiagnosticArray, "/diagnostics", DIAGNOSTICS)

    def wait(message):
        found = inbox.wait(lambda all_: message in all_[-1].status[0].message).status[0]
        return found.level, {pair.key: pair.value for pair in found.values}, found

    return wait


def test_a_policy_reports_what_it_saw_and_how_long_it_thought(probe, start, tmp_path):
    wait = reports(probe)
    policy = write(tmp_path, "policy.toml", "kind = 'constant'\naction = [0.25, -0.5]")
    start(PolicyNode, robot="safectl/PointHazard-v0", policy=policy)
    level, _, status = wait("observation: none received yet")
    assert (level, status.name) == (WARN, "policy: policy")
    assert status.hardware_id == "safectl/PointHazard-v0"
    states = publisher(probe, Float64MultiArray, "observation", STATE)
    states.publish(numbers_to_message(np.zeros(36), 77))
    level, figures, _ = wait("proposes")
    assert (level, figures["answers"]) == (OK, "1")
    assert 0.0 < float(figures["act_p99_s"]) < 1.0
    states.publish(numbers_to_message(np.zeros(35), 78))
    level, figures, _ = wait("observation: refused: ")
    assert (level, figures["refused_observations"]) == (ERROR, "1")


def test_a_planner_reports_its_plan_and_its_silence(probe, start, tmp_path):
    wait = reports(probe)
    robot = write(tmp_path, "robot.toml", BASE)
    planner = write(tmp_path, "planner.toml", "kind = 'pursuit'\ngoal = [2.0, 0.0]")
    start(PlannerNode, robot=robot, planner=planner, plan_timeout=0.5)
    states = publisher(probe, Odometry, "odom", SENSOR)
    timer = probe.node.create_timer(0.05, lambda: states.publish(odometry()))
    level, figures, status = wait("proposes")
    assert (level, status.name) == (OK, "planner: plan")
    assert int(figures["plans"]) >= 1
    assert figures["plan_status"] == "FALLBACK", "the pursuit claims nothing"
    assert float(figures["plan_p99_s"]) > 0.0
    probe.node.destroy_timer(timer)
    level, _, _ = wait("no new plan: nothing is proposed")
    assert level == WARN


@pytest.mark.parametrize("node", [PolicyNode, PlannerNode])
def test_a_missing_robot_is_one_clear_error(start, node):
    with pytest.raises(ConfigError, match="robot is not set"):
        start(node)


def test_a_foreign_policy_is_one_clear_error(start, tmp_path):
    policy = write(tmp_path, "policy.toml", "kind = 'constant'\naction = [0.25]")
    with pytest.raises(ConfigError, match="2 numbers"):
        start(PolicyNode, robot="safectl/PointHazard-v0", policy=policy)


def test_a_base_is_led_to_the_newest_goal_with_the_stamp_of_the_state(probe, start, tmp_path):
    robot = write(tmp_path, "robot.toml", BASE)
    planner = write(tmp_path, "planner.toml", "kind = 'pursuit'\ngoal = [2.0, 0.0]")
    start(PlannerNode, robot=robot, planner=planner)
    commands = Inbox(probe.node, TwistStamped, "cmd_vel", COMMAND)
    plans = Inbox(probe.node, Path, "plan", LATCHED)
    states = publisher(probe, Odometry, "odom", SENSOR)
    goals = publisher(probe, PoseStamped, "goal_pose", COMMAND)
    timer = probe.node.create_timer(0.05, lambda: states.publish(odometry()))
    command = commands.wait()
    assert command.header.stamp == STAMP
    assert command.twist.linear.x == pytest.approx(1.0)
    plan = plans.wait()
    assert plan.header.frame_id == "odom"
    assert len(plan.poses) == 40
    assert plan.poses[-1].pose.position.x > plan.poses[0].pose.position.x
    foreign = PoseStamped()
    foreign.header.frame_id, foreign.pose.position.x = "mars", -2.0
    goals.publish(foreign)
    goal = PoseStamped()
    goal.header.frame_id, goal.pose.position.y = "odom", 2.0
    goals.publish(goal)
    commands.wait(lambda messages: messages[-1].twist.angular.z == pytest.approx(2.0))
    timer.cancel()


def test_a_planner_that_sees_nothing_new_falls_silent(probe, start, tmp_path):
    robot = write(tmp_path, "robot.toml", BASE)
    planner = write(tmp_path, "planner.toml", "kind = 'pursuit'\ngoal = [2.0, 0.0]")
    start(PlannerNode, robot=robot, planner=planner, plan_timeout=0.3)
    arrivals = []
    probe.node.create_subscription(
        TwistStamped, "cmd_vel", lambda _: arrivals.append(time.monotonic()), COMMAND
    )
    states = publisher(probe, Odometry, "odom", SENSOR)
    wait_until(lambda: probe.node.count_publishers("cmd_vel") == 1)
    wait_until(lambda: states.publish(odometry()) or arrivals, poll_s=0.1)
    wait_until(lambda: time.monotonic() - arrivals[-1] > 0.5)
    assert arrivals[-1] - arrivals[0] < 0.3 + 2.0


def test_an_arm_is_led_to_its_goal_whatever_the_order_of_the_joints(probe, start, tmp_path):
    robot = write(tmp_path, "robot.toml", ARM)
    planner = write(
        tmp_path, "planner.toml", "kind = 'joint_line'\ngoal = [1.0, 0.0]\nspeed = [1.0, 1.0]"
    )
    start(PlannerNode, robot=robot, planner=planner)
    plans = Inbox(probe.node, JointTrajectory, "plan", LATCHED)
    commands = Inbox(probe.node, JointTrajectory, "joint_command", COMMAND)
    states = publisher(probe, JointState, "joint_states", SENSOR)
    goals = publisher(probe, JointTrajectory, "planner/goal", LATCHED)
    state = JointState(name=["wrist", "elbow"], position=[0.1, 0.2], velocity=[0.0, 0.0])
    state.header.stamp = STAMP
    timer = probe.node.create_timer(0.05, lambda: states.publish(state))
    plan = plans.wait()
    assert plan.joint_names == ["elbow", "wrist"]
    assert plan.points[0].positions[0] == pytest.approx(0.22)
    command = commands.wait()
    assert 0.2 < command.points[0].positions[0] < 1.0
    point = JointTrajectoryPoint(positions=[-1.0, 0.1])
    goals.publish(JointTrajectory(joint_names=["elbow", "wrist"], points=[point]))
    plans.wait(lambda messages: messages[-1].points[0].positions[0] < 0.2)
    timer.cancel()


def clear_of_the_obstacles(row, column):
    """Return whether a place is outside of both obstacles of the small maze."""
    circle = ((row - 1.05) / 0.3) ** 2 + ((column - 2.0) / 0.3) ** 2
    square = ((row - 2.0) / 0.4) ** 4 + ((column - 3.05) / 0.3) ** 4
    return circle >= 1.0 and square >= 1.0


@pytest.mark.slow
def test_the_shipped_diffusion_model_plans_and_commands_over_topics(probe, start, tmp_path):
    planner = write(tmp_path, "planner.toml", "kind = 'diffuser'\nsteps = 8\n")
    start(PlannerNode, robot="safectl/Maze2dUmaze-v0", planner=planner, plan_timeout=5.0)
    plans = Inbox(probe.node, Path, "plan", LATCHED)
    actions = Inbox(probe.node, Float64MultiArray, "action", COMMAND)
    states = publisher(probe, Float64MultiArray, "observation", STATE)
    goals = publisher(probe, PoseStamped, "goal_pose", COMMAND)
    seen = np.array([3.0, 3.0, 0.0, 0.0])
    timer = probe.node.create_timer(0.05, lambda: states.publish(numbers_to_message(seen, 77)))
    places = [(p.pose.position.x, p.pose.position.y) for p in plans.wait().poses]
    assert len(places) == 128
    assert np.hypot(*np.subtract(places[-1], (1.0, 1.0))) < 0.05
    assert all(clear_of_the_obstacles(*place) for place in places)
    command = actions.wait()
    assert np.abs(command.data).max() <= 1.0
    assert label_stamp(command) == 77
    for place in ((1.0, 2.0), (3.0, 2.0)):  # within an obstacle, which is refused; and free
        goal = PoseStamped()
        goal.pose.position.x, goal.pose.position.y = place
        goals.publish(goal)
    plans.wait(lambda messages: abs(messages[-1].poses[-1].pose.position.y - 2.0) < 0.05)
    timer.cancel()


def test_a_diffusion_model_of_another_robot_is_one_clear_error(start, tmp_path):
    planner = write(tmp_path, "planner.toml", "kind = 'diffuser'")
    with pytest.raises(ConfigError, match="umaze and the robot differ"):
        start(PlannerNode, robot="safectl/PointHazard-v0", planner=planner)


def test_the_page_of_the_robots_owner_names_every_policy_and_planner():
    page = (pathlib.Path(__file__).parents[3] / "docs" / "ros.md").read_text()
    assert [name for name in (*POLICIES, *PLANNERS) if f"`{name}`" not in page] == []

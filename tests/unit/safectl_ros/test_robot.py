"""A Gymnasium environment as a robot, without a graph."""

import math

import numpy as np
import pytest

from safectl.errors import ConfigError, ShapeError, UnknownNameError
from safectl_ros.robot import SimulatedRobot, make_env


def robot(env_id, kind="vector", **options):
    made = SimulatedRobot(make_env(env_id, **options), kind)
    made.restart(0)
    return made


def test_time_goes_on_by_one_period_per_step_and_restart():
    point = robot("safectl/PointHazard-v0")
    assert point.stamp_ns == 50_000_000
    point.step(np.zeros(2))
    point.restart()
    assert point.stamp_ns == 150_000_000


def test_a_command_beyond_its_limits_saturates():
    point = robot("safectl/PointHazard-v0")
    point.step(np.array([7.0, -7.0]))
    assert point.observation[:2].tolist() == [1.0, -2.0]


def test_the_episode_ends_and_its_violations_stay_counted():
    car = robot("safectl/SpeedLimit-v0")
    outcomes = []
    while not car.is_over:
        outcomes.append(car.step(np.ones(car.interface.spec.nu)))
    assert outcomes[-1].truncated
    costs = sum(outcome.cost for outcome in outcomes)
    assert car.violations == costs > 50
    car.restart()
    assert not car.is_over
    assert car.violations == costs


def test_a_base_reports_the_pose_of_the_world_and_takes_si_units():
    base = robot("safectl/PointHazard-v0", "base")
    names = [signal.name for signal in base.interface.spec.observation]
    assert names == ["x", "y", "heading", "speed", "turn_rate"]
    twist = base.interface.command_type()
    twist.twist.linear.x, twist.twist.angular.z = 0.5, 1.0
    base.step(base.interface.command_to_array(twist))
    odometry = base.interface.array_to_state(base.state, base.stamp_ns)
    assert odometry.twist.twist.linear.x == 0.5
    assert odometry.twist.twist.angular.z == 1.0
    position, truth = odometry.pose.pose.position, base.model_state
    assert [position.x, position.y] == truth[:2].tolist()
    back = base.interface.state_to_array(odometry)
    assert math.cos(back[2] - truth[2]) == pytest.approx(1.0)


def test_a_walking_robot_reports_its_joints_by_name():
    hopper = robot("SafetyHopperVelocity-v1", "arm")
    state = hopper.interface.array_to_state(hopper.state, hopper.stamp_ns)
    assert set(hopper.interface.joints) <= set(state.name)
    assert len(state.position) == len(state.velocity) == len(state.name)
    seen = hopper.interface.state_to_array(state)
    np.testing.assert_array_equal(seen, hopper.observation)
    assert hopper.model_state is None


@pytest.mark.parametrize(
    ("env_id", "keywords", "problem"),
    [
        ("safectl/PointHazzard-v0", "", "cannot be made"),
        ("Pendulum-v1", "{wings: 2}", "cannot be made"),
        ("Pendulum-v1", "{g: [", "is no YAML"),
        ("Pendulum-v1", "9.81", "expected a YAML mapping"),
    ],
)
def test_an_environment_that_cannot_be_made_is_one_clear_error(env_id, keywords, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        make_env(env_id, keywords)
    assert "\n" not in str(caught.value)


def test_an_environment_of_another_kind_is_refused():
    with pytest.raises(UnknownNameError, match="signal of a base"):
        robot("Pendulum-v1", "base")
    with pytest.raises(ShapeError, match="action space"):
        robot("CartPole-v1")

"""Robots from files: signals, messages and how they come to rest."""

import pytest
import torch

from safectl.errors import ConfigError, RangeError
from safectl_ros.adapters import ArmInterface, BaseInterface
from safectl_ros.robot_file import limited, load_robot
from tests.unit.safectl_ros.robot_files import ARM, BASE, write


def test_a_base_comes_to_rest_from_its_measured_speed(tmp_path):
    robot = load_robot(write(tmp_path, "robot.toml", BASE))
    assert isinstance(robot.interface, BaseInterface)
    assert robot.state_topic == "odom"
    observation = torch.tensor([[0.0, 0.0, 0.0, 0.4, 0.0]])
    action = robot.stops.comfort(observation, 0.0).action
    torch.testing.assert_close(action, torch.tensor([[0.3, 0.0]]))
    assert not robot.stops.emergency(observation, 0.0).action.any()
    assert not robot.stops.needs_observation


def test_an_arm_holds_where_it_is_and_is_not_moved_before_it_was_seen(tmp_path):
    robot = load_robot(write(tmp_path, "robot.toml", ARM))
    assert isinstance(robot.interface, ArmInterface)
    assert robot.stops.needs_observation
    action = robot.stops.emergency(torch.tensor([[0.3, -0.4, 1.0, 0.0]]), 0.0).action
    torch.testing.assert_close(action, torch.tensor([[0.3, -0.4]]))


def test_an_environment_is_a_robot_and_may_report_the_state_of_its_model():
    robot = load_robot("safectl/DoubleIntegrator-v0")
    assert (robot.state_topic, robot.spec.nx) == ("observation", 6)
    seeing = load_robot("safectl/DoubleIntegrator-v0", sees_state=True)
    assert (seeing.state_topic, seeing.spec.nx) == ("model_state", 4)
    braking = seeing.stops.comfort(torch.tensor([[0.0, 0.0, 0.01, 0.0]]), 0.0).action
    torch.testing.assert_close(braking, torch.tensor([[-0.2, 0.0]]))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BASE.replace('kind = "base"', 'kind = "bass"'), "bass"),
        (BASE.replace('"speed", "turn_rate"]', '"sped", "turn_rate"]'), "did you mean 'speed'"),
        (BASE.replace("deceleration = [5.0, 10.0]", "deceleration = [5.0]"), "deceleration"),
        (BASE.replace("period = 0.02", "period = 0.0"), "positive number of seconds"),
        (BASE.replace("period = 0.02", "perod = 0.02"), "did you mean 'period'"),
        (ARM.replace('positions = ["elbow", "wrist"]', ""), "one index per action"),
        (ARM[: ARM.index("[stop]")] + '[stop]\ncommand = "position"', "per position"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(tmp_path, text, problem):
    with pytest.raises(ConfigError, match=problem):
        load_robot(write(tmp_path, "robot.toml", text))


def test_an_unknown_environment_is_one_clear_error():
    with pytest.raises(ConfigError, match="PointHzard"):
        load_robot("safectl/PointHzard-v0")
    with pytest.raises(ConfigError, match="our worlds"):
        load_robot("Pendulum-v1", sees_state=True)


def test_shares_tighten_limits_towards_rest(tmp_path):
    spec = load_robot(write(tmp_path, "robot.toml", BASE)).spec
    assert limited(spec, [0.5]).action_high == (0.5, 1.0)
    assert limited(spec, [0.5, 1.0]).action_low == (-0.5, -2.0)
    for wrong in ([0.0], [1.1], [0.5, 0.5, 0.5], []):
        with pytest.raises(RangeError, match="limit_shares"):
            limited(spec, wrong)

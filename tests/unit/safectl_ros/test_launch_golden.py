"""The shipped launch files: the command lines they stand for, and their twins in Python.

After a wanted change: SAFECTL_REWRITE_GOLDEN=1 pytest tests/unit/safectl_ros/test_launch_golden.py
"""

import ast
import os
from pathlib import Path

import pytest

from safectl.errors import ConfigError
from safectl_ros.launch_file import read_launch_file
from safectl_ros.launchlite import assignments, show_commands
from tests.ros_prefix import PACKAGE, install

GOLDEN = Path(__file__).parents[2] / "golden" / "launch"
CALLS = {
    "sim": "sim",
    "sim_all": "sim lockstep:=true policy:=true policy_file:=/runs/a record:=true bag:=/bags/b",
    "sim_alone": "sim guard:=false env:=SafetyPointGoal1-v0 sees_state:=false",
    "robot": "robot robot:=/etc/base.toml safeguard:=/etc/discs.toml",
    "robot_without_estop": "robot robot:=/r.toml safeguard:=/s.toml use_estop:=false rate_hz:=100",
    "plan": "plan planner:=/etc/planner.toml",
    "hil": "hil",
    "hil_real": "hil emulated:=false port:=/dev/ttyACM0 robot:=/r.toml",
}


@pytest.fixture
def installed(tmp_path):
    """Where the package is installed."""
    return install(tmp_path)


@pytest.mark.parametrize("name", CALLS)
def test_a_launch_file_stands_for_its_golden_command_lines(name, installed):
    file, *arguments = CALLS[name].split()
    environment = {"AMENT_PREFIX_PATH": str(installed)}
    path = PACKAGE / f"{file}.launch.xml"
    plan = read_launch_file(path, assignments(arguments), environment)
    printed = show_commands(plan).replace(str(installed), "PREFIX")
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("SAFECTL_REWRITE_GOLDEN"):
        golden.write_text(printed)
    assert printed == golden.read_text()
    assert len({process.name for process in plan.processes}) == len(plan.processes)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.launch.xml")), ids=lambda path: path.name)
def test_a_launch_file_has_described_arguments_and_a_twin(path, installed):
    body = (path.with_suffix("").with_suffix(".launch.py")).read_text()
    assert f"/{path.name}" in body
    assert len([node for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Assign)]) == 1
    given = {"robot": "/r", "safeguard": "/s"} if path.name == "robot.launch.xml" else {}
    given |= {"planner": "/p"} if path.name == "plan.launch.xml" else {}
    plan = read_launch_file(path, given, {"AMENT_PREFIX_PATH": str(installed)})
    assert plan.arguments
    assert all(argument.description for argument in plan.arguments)


def test_a_missing_argument_is_named(installed):
    with pytest.raises(ConfigError, match="robot:=VALUE"):
        read_launch_file(PACKAGE / "robot.launch.xml", {}, {"AMENT_PREFIX_PATH": str(installed)})


def test_demos_keep_to_this_computer_and_a_domain_of_their_own(installed):
    for name in ("sim", "hil"):
        plan = read_launch_file(
            PACKAGE / f"{name}.launch.xml", {}, {"AMENT_PREFIX_PATH": str(installed)}
        )
        for process in plan.processes:
            assert process.environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
            assert process.environment["ROS_DOMAIN_ID"] != "0"


def test_a_choice_of_the_caller_wins_over_the_demo_defaults(installed):
    caller = {"AMENT_PREFIX_PATH": str(installed), "ROS_DOMAIN_ID": "7"}
    plan = read_launch_file(PACKAGE / "sim.launch.xml", {}, caller)
    assert {process.environment["ROS_DOMAIN_ID"] for process in plan.processes} == {"7"}

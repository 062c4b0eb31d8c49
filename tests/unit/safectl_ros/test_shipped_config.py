"""The robots and safeguards that the package ships: they load, and keep what their comments say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safectl_ros.robot_file import load_robot
from safectl_ros.safeguards import load_safeguard

CONFIG = Path(__file__).parents[3] / "launch" / "config"
PAIRS = {"base": "base_safeguard", "arm": "arm_safeguard", "integrator": "clip"}
ROUNDING = 1e-4  # of float32 sums over two hundred steps


def load(name):
    robot = load_robot(str(CONFIG / f"{name}.toml"))
    return robot, load_safeguard(CONFIG / f"{PAIRS[name]}.toml", robot, robot.spec).safeguard


def decide(safeguard, observation, action):
    """Return the decided action of one row of numbers."""
    rows = (torch.tensor(row, dtype=torch.float32).unsqueeze(0) for row in (observation, action))
    with torch.no_grad():
        return safeguard.filter(*rows).action[0].double().numpy()


@pytest.mark.parametrize("name", PAIRS)
def test_a_robot_and_its_safeguard_load_and_keep_the_limits(name):
    robot, safeguard = load(name)
    spec = robot.spec
    action = decide(safeguard, np.zeros(spec.nx), np.full(spec.nu, 99.0))
    assert (action <= np.array(spec.action_high) + ROUNDING).all()


def test_an_arm_at_full_speed_stays_a_tenth_of_a_radian_inside_its_range():
    robot, safeguard = load("arm")
    spec = robot.spec
    limits = np.array([signal.high for signal in spec.observation[:6]])
    position = np.zeros(6)
    for _ in range(200):
        seen = np.concatenate([position, np.zeros(6)])
        position = position + spec.period * decide(safeguard, seen, np.array(spec.action_high))
    assert (position <= limits - 0.1 + ROUNDING).all()
    assert (position >= limits - 0.2).all(), "the guard holds it back without a reason"


def test_a_base_that_is_driven_at_a_disc_and_a_wall_stays_out():
    robot, safeguard = load("base")
    x, y, heading = 0.0, 0.0, 0.0
    nearest = np.inf
    for step in range(600):
        speed, turn = decide(safeguard, [x, y, heading, 0.0, 0.0], [0.3, 1.5 * (step > 300)])
        x += robot.spec.period * speed * np.cos(heading)
        y += robot.spec.period * speed * np.sin(heading)
        heading += robot.spec.period * turn
        nearest = min(nearest, np.hypot(x - 2.0, y))
    assert nearest >= 0.45 - ROUNDING
    assert nearest < 0.6, "the guard holds it back without a reason"

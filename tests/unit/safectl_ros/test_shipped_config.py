"""The robots and safeguards that the package ships: they load, and keep what their comments say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safectl_ros.robot import SimulatedRobot, make_env
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


@pytest.mark.parametrize("delay", [0, 3])
def test_a_base_that_is_driven_at_a_disc_stays_out_with_odometry_up_to_three_periods_old(delay):
    robot, safeguard = load("base")
    seen = [np.zeros(5)]
    for step in range(600):
        proposal = [0.3, 1.5 * (step > 400)]
        speed, turn = decide(safeguard, seen[max(0, len(seen) - 1 - delay)], proposal)
        x, y, heading = seen[-1][:3]
        way, after = robot.spec.period * speed, heading + robot.spec.period * turn
        seen.append(np.array([x + way * np.cos(heading), y + way * np.sin(heading), after, 0, 0]))
    gaps = np.hypot(*(np.array(seen)[:, :2] - [2.0, 0.0]).T)
    assert gaps.min() >= 0.45 - ROUNDING
    assert gaps.min() < 0.6, "the guard holds it back without a reason"


@pytest.mark.slow
@pytest.mark.parametrize(("file", "delay"), [("lockstep", 0), ("realtime", 3)])
def test_a_world_is_kept_with_observations_as_old_as_its_file_says(file, delay):
    assert costs(file, delay) == 0


@pytest.mark.slow
def test_what_is_made_for_lock_step_does_not_hold_with_a_delay():
    assert costs("lockstep", 1) > 0


def costs(file, delay, steps=200):
    """Drive PointHazard ahead with old observations; return the number of steps with a cost."""
    robot = load_robot("safectl/PointHazard-v0", sees_state=True)
    safeguard = load_safeguard(CONFIG / f"world_{file}.toml", robot, robot.spec).safeguard
    world = SimulatedRobot(make_env("safectl/PointHazard-v0"))
    world.restart(0)
    seen, count = [world.model_state], 0
    for _ in range(steps - 1):
        old = seen[max(0, len(seen) - 1 - delay)]
        count += world.step(decide(safeguard, old, [1.0, 0.0])).cost > 0.0
        seen.append(world.model_state)
    world.close()
    return count

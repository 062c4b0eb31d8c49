"""The whole chain in processes: simulator, guard, recorder; judged from the bag by other code."""

import numpy as np
import pytest
import torch
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from safectl_ros.env import RosEnv
from safectl_ros.robot import SimulatedRobot, make_env
from safectl_ros.robot_file import load_robot
from safectl_ros.safeguards import compile_rows, load_safeguard

STORE = get_typestore(Stores.ROS2_JAZZY)
SECONDS = 60.0
SAME = 1e-6
"""Actions are float32; as float64 on the wire they are unchanged, so this is rounding at most."""

START_S = 60.0  # three processes that import torch, on a machine that does other things too
MISSED = 120  # first steps: in lock-step a fraction of a second, in which the recorder is found
RADIUS = 0.2  # of a hazard of PointHazard [m]


def read(folder, topic):
    """Return the numbers of every message of a topic by their stamp, the first of each stamp."""
    rows = {}
    with Reader(folder) as reader:
        wanted = [c for c in reader.connections if c.topic == topic]
        for connection, _, raw in reader.messages(wanted):
            message = STORE.deserialize_cdr(raw, connection.msgtype)
            rows.setdefault(int(message.layout.dim[0].label), np.array(message.data))
    return rows


def proposals(spec, steps):
    """Return actions within the limits, shape (steps, nu): mostly full ahead, with slow turns."""
    generator = np.random.default_rng(3)
    turns = np.repeat(generator.uniform(-0.4, 0.4, (steps // 20 + 1, spec.nu)), 20, axis=0)
    actions = turns[:steps].astype(np.float32)
    actions[:, 0] = spec.action_high[0] * generator.uniform(0.6, 1.0, steps)
    return actions


def in_process(env_id, file, actions, *, sees_state):
    """Return what the same safeguard decides, and the costs, without ROS; states as they come."""
    robot = load_robot(env_id, sees_state=sees_state)
    safeguard = compile_rows(load_safeguard(file, robot, robot.spec), robot.spec)[0].safeguard
    world = SimulatedRobot(make_env(env_id))
    world.restart(0)
    decided, costs = [], []
    for action in actions:
        seen = world.model_state if sees_state else world.observation
        observation = torch.tensor(seen, dtype=torch.float32).unsqueeze(0)
        decision = safeguard.filter(observation, torch.tensor(action).unsqueeze(0))
        decided.append(decision.action[0].numpy())
        costs.append(world.step(decided[-1].astype(np.float64)).cost)
        if world.is_over:
            world.restart()
    world.close()
    return np.array(decided), np.array(costs)


def over_topics(env, actions):
    """Return the costs of the same actions over topics, one step per command."""
    env.reset(seed=0)
    costs = []
    for action in actions:
        *_, terminated, truncated, info = env.step(action)
        assert not info["stale"], info
        costs.append(info["cost"])
        if terminated or truncated:
            env.reset()
    return np.array(costs)


@pytest.fixture(scope="module")
def safeguards(tmp_path_factory):
    """A file with a safeguard for each environment."""
    folder = tmp_path_factory.mktemp("safeguards")
    (folder / "world.toml").write_text("kind = 'world'\n")
    (folder / "rate.toml").write_text("kind = 'rate_limit'\nrate = [4.0, 4.0]\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "safeguard", "sees_state"),
    [("safectl/PointHazard-v0", "world", True), ("SafetyPointGoal1-v0", "rate", False)],
)
def test_a_minute_over_topics_equals_a_minute_in_process(
    launched, tmp_path, safeguards, env_id, safeguard, sees_state
):
    file, bag = safeguards / f"{safeguard}.toml", tmp_path / "bag"
    robot = load_robot(env_id)
    actions = proposals(robot.spec, round(SECONDS / robot.spec.period))
    expected, expected_costs = in_process(env_id, file, actions, sees_state=sees_state)
    running = launched(
        "sim.launch.xml",
        env=env_id,
        safeguard=file,
        sees_state=sees_state,
        lockstep=True,
        record=True,
        bag=bag,
    )
    env = RosEnv(robot.interface, start_timeout_s=START_S, timeout_s=20.0)
    try:
        costs = over_topics(env, actions)
    finally:
        env.close()
    assert running.stop() == 0

    assert np.abs(costs - expected_costs).max() == 0.0
    safe, proposed = read(bag, "/action_safe"), read(bag, "/action")
    step_of = {tuple(action.astype(float)): step for step, action in enumerate(actions)}
    known = {stamp: step_of.get(tuple(row)) for stamp, row in sorted(proposed.items())}
    steps = {step: stamp for stamp, step in known.items() if step is not None and stamp in safe}
    assert len(steps) >= len(actions) - MISSED
    assert min(steps) <= MISSED, "only the first ones may be missing"
    assert sorted(steps, key=steps.__getitem__) == sorted(steps), "each once and in order"
    differences = [np.abs(safe[stamp] - expected[step]) for step, stamp in steps.items()]
    assert np.max(differences) <= SAME
    assert np.abs(expected - actions).max() > 0.1, "the guard had nothing to do"
    if sees_state:
        rows = np.array(list(read(bag, "/model_state").values()))
        gaps = np.linalg.norm(rows[:, 3:].reshape(len(rows), -1, 2) - rows[:, None, :2], axis=-1)
        assert gaps.min() >= RADIUS
        assert costs.max() == 0.0

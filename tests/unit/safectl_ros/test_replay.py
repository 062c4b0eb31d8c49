"""Recorded commands filtered again, and bags as data sets; without a graph."""

import json

import minari
import numpy as np
import pytest
import torch
from rclpy.serialization import serialize_message
from std_msgs.msg import Float64MultiArray

from safectl.errors import FileFormatError, RangeError, StorageError
from safectl_agents.cli import main
from safectl_ros.adapters.vector import numbers_to_message
from safectl_ros.bag_writer import BagWriter
from safectl_ros.bags import to_minari
from safectl_ros.message_types import message_name
from safectl_ros.recording import read_recording
from safectl_ros.replay import replay
from safectl_ros.robot import SimulatedRobot, make_env
from safectl_ros.robot_file import load_robot
from safectl_ros.safeguards import load_safeguard

ENV = "safectl/PointHazard-v0"
STEPS, EPISODE = 60, 40
TOPICS = ("observation", "model_state", "action", "action_safe", "sim/outcome")
_MILLISECOND = 1_000_000


@pytest.fixture(scope="module")
def safeguard(tmp_path_factory):
    path = tmp_path_factory.mktemp("safeguard") / "world.toml"
    path.write_text("kind = 'world'\n")
    return path


class Tape:
    """A bag that is written message by message, a millisecond apart."""

    def __init__(self, folder):
        self.bag, self.now = BagWriter(folder), 1_000_000_000_000_000_000
        kind = message_name(Float64MultiArray)
        self.topics = {name: self.bag.add_topic(f"/robot/{name}", kind) for name in TOPICS}

    def put(self, topic, values, stamp):
        self.now += _MILLISECOND
        message = numbers_to_message(np.asarray(values, dtype=np.float64), stamp)
        self.bag.write(self.topics[topic], self.now, bytes(serialize_message(message)))


@pytest.fixture(scope="module")
def bag(tmp_path_factory, safeguard):
    """Record what a guarded simulator does in lock-step, two episodes of it."""
    folder = tmp_path_factory.mktemp("recording") / "bag"
    robot = load_robot(ENV, sees_state=True)
    guard = load_safeguard(safeguard, robot, robot.spec).safeguard
    world = SimulatedRobot(make_env(ENV, f"{{max_episode_steps: {EPISODE}}}"))
    generator = np.random.default_rng(0)
    tape = Tape(folder)
    world.restart(0)
    for _ in range(STEPS):
        stamp = world.stamp_ns
        tape.put("observation", world.observation, stamp)
        tape.put("model_state", world.model_state, stamp)
        proposal = np.array([1.0, generator.uniform(-0.3, 0.3)], dtype=np.float32)
        state = torch.tensor(world.model_state, dtype=torch.float32).unsqueeze(0)
        action = guard.filter(state, torch.tensor(proposal).unsqueeze(0)).action[0].numpy()
        tape.put("action", proposal, stamp)
        tape.put("action_safe", action, stamp)
        outcome = world.step(action.astype(np.float64))
        row = [outcome.reward, outcome.cost, outcome.terminated, outcome.truncated]
        tape.put("sim/outcome", row, world.stamp_ns)
        if world.is_over:
            tape.put("observation", world.observation, world.stamp_ns)
            world.restart()
    tape.put("observation", world.observation, world.stamp_ns)
    tape.bag.close()
    world.close()
    return folder


def test_a_replay_decides_what_was_decided_then(bag, safeguard):
    robot = load_robot(ENV, sees_state=True)
    recording = read_recording(bag, robot.interface, state_topic="model_state")
    guard = load_safeguard(safeguard, robot, robot.spec).safeguard
    first, second = (replay(recording, guard) for _ in range(2))
    summary = first.summary()
    assert summary["proposals"] == summary["answered_then"] == summary["same_as_then"] == STEPS
    assert summary["kept"] + summary["corrected"] == STEPS
    assert summary["skipped"] == summary["refused"] == 0
    assert summary["smallest_margin"] >= -1e-6
    assert (first.decided == second.decided).all()


def test_another_safeguard_shows_what_it_would_have_changed(bag, tmp_path, capsys):
    (tmp_path / "clip.toml").write_text("kind = 'clip'\n")
    words = ["replay", str(bag), "--safeguard", str(tmp_path / "clip.toml"), "--robot", ENV]
    assert main([*words, "--json", "--plot", str(tmp_path / "replay.png")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["kept"] == STEPS
    assert summary["same_as_then"] < STEPS
    assert summary["largest_difference"] > 0.01
    assert (tmp_path / "replay.png").stat().st_size > 10_000
    assert main(words) == 0
    assert "same as then" in capsys.readouterr().out


def test_a_bag_becomes_a_dataset_of_two_episodes(bag, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert main(["bag", str(bag), "--minari", "robot/test-v0", "--robot", ENV]) == 0
    assert capsys.readouterr().out == f"{STEPS} steps\n"
    dataset = minari.load_dataset("robot/test-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (2, STEPS)
    first, second = dataset.iterate_episodes()
    recording = read_recording(bag, load_robot(ENV).interface)
    assert first.observations.shape == (EPISODE + 1, 36)
    assert second.observations.shape == (STEPS - EPISODE + 1, 36)
    assert np.allclose(first.actions, recording.safe.values[:EPISODE])
    assert np.allclose(first.observations[:EPISODE], recording.states.values[:EPISODE], atol=1e-6)
    assert np.allclose(np.concatenate([first.rewards, second.rewards]), rewards(recording))
    assert first.truncations.tolist() == [False] * (EPISODE - 1) + [True]
    with pytest.raises(StorageError, match="robot/test-v0"):
        to_minari(recording, load_robot(ENV).spec, "robot/test-v0")


def rewards(recording):
    return recording.outcomes.values[:, 0]


def test_without_stamps_the_newest_state_and_command_count(tmp_path, safeguard):
    tape = Tape(tmp_path / "bag")
    robot = load_robot(ENV)
    for index in range(4):
        state = np.full(robot.spec.nx, float(index))
        tape.put("observation", state, 10 * index)
        tape.put("action", [0.1 * index, 0.0], 999)
        tape.put("action_safe", [0.1 * index, 0.5], 998)
    tape.bag.close()
    recording = read_recording(tmp_path / "bag", robot.interface)
    (tmp_path / "clip.toml").write_text("kind = 'clip'\n")
    guard = load_safeguard(tmp_path / "clip.toml", robot, robot.spec).safeguard
    result = replay(recording, guard)
    assert result.proposed[:, 0].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert np.isnan(result.recorded).all()
    assert result.summary()["answered_then"] == 0


def test_numbers_that_are_no_numbers_and_foreign_messages_are_counted(tmp_path):
    tape = Tape(tmp_path / "bag")
    robot = load_robot(ENV)
    tape.put("action", [0.0, 0.0], 1)
    tape.put("observation", np.zeros(robot.spec.nx), 2)
    tape.put("action", [0.0, np.nan], 2)
    tape.put("action", [0.0, 0.0, 0.0], 2)
    tape.put("action", [0.0, 0.0], 2)
    tape.bag.close()
    recording = read_recording(tmp_path / "bag", robot.interface)
    (tmp_path / "clip.toml").write_text("kind = 'clip'\n")
    guard = load_safeguard(tmp_path / "clip.toml", robot, robot.spec).safeguard
    result = replay(recording, guard)
    assert (len(result.time), result.skipped, result.refused) == (1, 2, 1)
    with pytest.raises(RangeError, match="safe command"):
        to_minari(recording, robot.spec, "robot/none-v0")


def test_the_robots_of_two_namespaces_are_not_mixed(tmp_path):
    tape = Tape(tmp_path / "bag")
    kind = message_name(Float64MultiArray)
    tape.topics["other"] = tape.bag.add_topic("/other/observation", kind)
    robot = load_robot(ENV)
    tape.put("action", [0.0, 0.0], 1)
    for topic in ("observation", "other"):
        tape.put(topic, np.zeros(robot.spec.nx), 2)
    tape.bag.close()
    with pytest.raises(FileFormatError, match=r"/other/observation, /robot/observation"):
        read_recording(tmp_path / "bag", robot.interface)


def test_what_is_no_bag_or_was_not_closed_is_one_error(tmp_path, bag):
    interface = load_robot(ENV).interface
    with pytest.raises(FileFormatError, match="is no bag"):
        read_recording(tmp_path, interface)
    with pytest.raises(FileFormatError, match="holds no state"):
        read_recording(bag, interface, state_topic="none")
    writer = BagWriter(tmp_path / "open")
    try:
        with pytest.raises(FileFormatError, match=r"safectl bag .* --recover"):
            read_recording(tmp_path / "open", interface)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["replay"], "name the bag"),
        (["replay", "x"], "name the safeguard"),
        (["replay", "x", "--safeguard", "y"], "name the robot"),
        (["bag", "x"], "one of --recover FOLDER and --minari"),
        (["bag", "x", "--minari", "a/b-v0"], "name the robot"),
        (["launch"], "name a launch file"),
        (["launch", "none.launch.xml"], "this package has"),
    ],
)
def test_an_incomplete_call_says_what_is_missing(words, text, capsys):
    assert main(words) == 1
    assert text in capsys.readouterr().err

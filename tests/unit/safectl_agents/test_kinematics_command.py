"""`safectl train kinematics`, from the logs that people have to a program for the controller."""

import csv
import json
import warnings

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer
from PIL import Image

from safectl.errors import FileFormatError, NonFiniteError, RangeError
from safectl.export import forward_model_of, load_program
from safectl.planners import forward_model
from safectl_agents.cli import main
from safectl_agents.composites.log_files import Columns, read_logs
from safectl_agents.composites.training import TrainingOptions, make_network, network_program

COLUMNS = Columns(("push",), ("angle",), ("light",))


def motion(samples=200):
    """y(n) = 0.8 y(n-1) + 0.2 u(n); the sensor shows y again."""
    push = np.sin(0.11 * np.arange(samples)) * np.cos(0.03 * np.arange(samples))
    angle = np.zeros(samples)
    for n in range(1, samples):
        angle[n] = 0.8 * angle[n - 1] + 0.2 * push[n]
    return push, angle


def write_csv(path, *, samples=200, header=("light", "push", "angle")):
    push, angle = motion(samples)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *zip(2.0 * angle, push, angle, strict=True)])


def test_columns_of_a_csv_file_are_found_by_name(tmp_path):
    write_csv(tmp_path / "log.csv")
    (log,) = read_logs(tmp_path / "log.csv", COLUMNS)
    push, angle = motion()
    assert np.allclose(log.inputs[:, 0], push)
    assert np.allclose(log.outputs[:, 0], angle)
    assert np.allclose(log.sensors[:, 0], 2.0 * angle)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("push,angle,light\n1,2\n", FileFormatError, "no table of numbers"),
        ("push,angle,light\n1,2,x\n", FileFormatError, "could not convert"),
        ("push,angle,light\n1,2,nan\n", NonFiniteError, "sensors"),
        ("push,angle\n1,2\n", RangeError, "light"),
        ("", FileFormatError, "no table of numbers"),
    ],
)
def test_a_csv_file_that_is_no_log_says_why(text, error, words, tmp_path):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(error, match=words):
        read_logs(tmp_path / "log.csv", COLUMNS)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="neither"):
        read_logs(tmp_path, COLUMNS)


def write_minari(lengths):
    """Episodes whose observation is (y, sensor) and whose action leads to the next one."""
    buffers = []
    for seed, steps in enumerate(lengths):
        push, angle = motion(steps + 1)
        observations = np.stack([angle, 2.0 * angle], 1).astype(np.float32)
        buffers.append(
            EpisodeBuffer(
                id=seed,
                observations=list(observations),
                actions=list(push[1:, None].astype(np.float32)),
                rewards=[0.0] * steps,
                terminations=[False] * steps,
                truncations=[False] * (steps - 1) + [True],
            )
        )
    with warnings.catch_warnings():  # of author, environment and scores
        warnings.filterwarnings("ignore", module=r"minari\.")
        minari.create_dataset_from_buffers(
            "motion/test-v0",
            buffers,
            observation_space=gym.spaces.Box(-9.0, 9.0, (2,), np.float32),
            action_space=gym.spaces.Box(-9.0, 9.0, (1,), np.float32),
        )


def test_every_episode_of_a_minari_dataset_is_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_minari((50, 30))
    logs = read_logs(tmp_path / "motion" / "test-v0", Columns(outputs=("0",), sensors=("1",)))
    assert [len(log.inputs) for log in logs] == [50, 30]
    push, angle = motion(51)
    assert np.allclose(logs[0].inputs[:, 0], push[1:], atol=1e-6)
    assert np.allclose(logs[0].outputs[:, 0], angle[1:], atol=1e-6)


@pytest.mark.parametrize("gated", [0, 5])
def test_the_program_of_a_network_is_the_model_that_the_controller_uses(gated):
    network = make_network(6, 2, TrainingOptions(hidden=(7,), gated=gated))
    x = torch.linspace(-1.0, 1.0, 18).reshape(3, 6)
    found = forward_model_of(network_program(network)).value(x)
    torch.testing.assert_close(found, forward_model(network).value(x))


def test_a_log_becomes_a_program_and_a_picture(tmp_path, capsys):
    write_csv(tmp_path / "log.csv", samples=600)
    words = ["train", "kinematics", str(tmp_path / "log.csv"), "--folder", str(tmp_path / "out")]
    words += ["--inputs", "push", "--outputs", "angle", "--sensors", "light", "--epochs", "60"]
    assert main([*words, "--hidden", "8", "--batch", "32", "--activation", "tanh", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["held_out_rms"] < 0.03
    assert load_program(tmp_path / "out" / "program").spec.nx == facts["inputs"] == 5
    with Image.open(tmp_path / "out" / "prediction.png") as picture:
        assert picture.width > 300


def test_wrong_calls_say_what_is_missing(tmp_path, capsys):
    write_csv(tmp_path / "log.csv")
    assert main(["train", "kinematics"]) == 1
    assert "name at least one log" in capsys.readouterr().err
    assert main(["train", "kinematics", str(tmp_path / "log.csv"), "--outputs", "angle"]) == 1
    assert "inputs and outputs" in capsys.readouterr().err

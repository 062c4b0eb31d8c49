"""`safectl run` on a simulated robot and on a board behind a pseudo-terminal."""

import json

import pytest

from safectl.record import read_record
from safectl_agents.cli import main
from safectl_agents.models import make_env
from safectl_envs.signals import spec_of
from safectl_hardware.fake_board import FakeBoard
from tests.waiting import wait_until

ENV = "safectl/SpeedLimit-v0"
TINY = ["--steps", "64", "--n-envs", "2", "--ppo.rollout", "16", "--ppo.batch-size", "32"]


def train(folder, guard):
    words = ["train", "--env", ENV, "--guard", guard, "--folder", str(folder)]
    assert main([*words, *TINY]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("trained") / "run", "limits")


def test_a_simulated_robot_is_driven_and_recorded(trained, tmp_path, capsys):
    record = tmp_path / "run.mcap"
    assert main(["run", str(trained), "--steps", "30", "--record", str(record), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 30
    assert len(read_record(record).sent) == 30
    assert main(["run", str(trained), "--steps", "3"]) == 0
    assert capsys.readouterr().out.startswith("3 steps, ")


def test_a_board_is_driven_and_stopped(trained, capsys):
    env = make_env(ENV)
    with FakeBoard(spec_of(env)) as board:
        words = ["run", str(trained), "--bridge", "serial", "--port", board.port]
        assert main([*words, "--steps", "2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == 2
        assert board.commands, "the first at least; a late second one meets a board that stopped"
        wait_until(lambda: board.stops > 0)
        assert not board.is_running
    env.close()


def test_a_bridge_without_its_port_and_a_missing_folder_are_refused(trained, capsys):
    assert main(["run", str(trained), "--bridge", "serial"]) == 1
    assert "belong together" in capsys.readouterr().err
    assert main(["run", str(trained), "--port", "/dev/ttyUSB0"]) == 1
    assert "belong together" in capsys.readouterr().err
    assert main(["run"]) == 1
    assert "name the folder" in capsys.readouterr().err
    assert main(["run", str(trained), "--bridge", "serial", "--port", "/dev/nowhere"]) == 1
    assert "does not open" in capsys.readouterr().err


def test_a_barrier_over_the_true_state_is_refused(tmp_path, capsys):
    folder = train(tmp_path / "run", "barrier")
    assert main(["run", str(folder)]) == 1
    assert "true state" in capsys.readouterr().err

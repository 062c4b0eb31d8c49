"""A user's reward function, asked of the shipped model."""

import json
import re

import numpy as np
import pytest
import torch

from safectl.errors import ConfigError, RangeError, ShapeError, TaskNotInferable
from safectl_agents.bench.fb_visits import SHIPPED
from safectl_agents.cli import main
from safectl_agents.fb.collect import CollectConfig, collect
from safectl_agents.fb.episodes import Episode, save_episode
from safectl_agents.fb.own_task import WAYS, ask, reward_function

REWARDS = """
def slow(observation):
    return -observation[:, 2:].norm(dim=1)

def narrow(observation):
    return observation[:, 9]

def wide(observation):
    return observation

def nan(observation):
    return observation[:, 0] * float("nan")

number = 3
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return collect(CollectConfig(collector="wander", episodes=3), folder)


@pytest.fixture
def rewards(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(REWARDS)
    return path


def test_the_policy_of_an_own_task_does_better_than_chance(data, rewards):
    done = []
    function = reward_function(f"{rewards}:slow")
    found = ask(SHIPPED, function, data=data, episodes=3, progress=done.append)
    assert tuple(found.returns) == WAYS
    assert all(len(returns) == 3 for returns in found.returns.values())
    policy, uniform, still = (found.returns[name].mean() for name in WAYS)
    assert uniform < policy < still == pytest.approx(0.0, abs=1e-9)
    assert found.quality.r_squared > 0.8
    assert done[-1] == 1000


def test_the_command_tells_quality_and_returns(data, rewards, capsys):
    line = ["evaluate", "fb", str(SHIPPED), "--data", str(data), "--episodes", "2"]
    assert main([*line, "--reward", f"{rewards}:slow", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quality"]["nonzero"] == pytest.approx(1.0, abs=0.01)
    assert found["returns"]["random actions"]["mean"] < 0.0
    assert main([*line, "--reward", f"{rewards}:slow"]) == 0
    assert "of the variance of the reward is linear in B" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("narrow", "narrow raised IndexError"),
        ("wide", r"reward has shape \(\d+, 4\)"),
        ("nan", "non-finite values"),
        ("number", "holds no function 'number'"),
        ("nobody", "holds no function 'nobody'"),
    ],
)
def test_a_function_that_cannot_be_used_is_one_error(data, rewards, capsys, name, message):
    line = ["evaluate", "fb", str(SHIPPED), "--data", str(data)]
    assert main([*line, "--reward", f"{rewards}:{name}"]) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("kind", ["learned", "flags", "counts", "array"])
def test_rewards_may_be_of_any_kind_of_number(data, kind):
    weight = torch.ones(1, requires_grad=True)
    function = {
        "learned": lambda rows: weight * rows[:, 0],
        "flags": lambda rows: rows[:, 0] < 0.0,
        "counts": lambda rows: (rows[:, 0] < 0.0).long(),
        "array": lambda rows: rows[:, 0].double().numpy(),
    }[kind]
    found = ask(SHIPPED, function, data=data, episodes=1)
    assert all(np.isfinite(returns).all() for returns in found.returns.values())


def test_a_function_that_writes_into_its_observations_changes_nothing(data):
    def harmless(rows):
        return -rows[:, 2:].norm(dim=1)

    def harmful(rows):
        rewards = harmless(rows)
        rows.zero_()
        return rewards

    ours, theirs = (ask(SHIPPED, f, data=data, episodes=1) for f in (harmful, harmless))
    assert ours.quality == theirs.quality
    assert all((ours.returns[name] == theirs.returns[name]).all() for name in WAYS)


def test_a_file_that_ends_the_program_is_refused(tmp_path):
    (tmp_path / "rewards.py").write_text("import sys; sys.exit(0)")
    with pytest.raises(ConfigError, match="cannot be run: SystemExit"):
        reward_function(f"{tmp_path}/rewards.py:near")


def test_data_of_another_domain_are_refused(tmp_path):
    rows = np.zeros((5, 3), np.float32)
    save_episode(Episode(rows, rows[:, :2], rows[:, :1], np.ones(5, np.float32)), tmp_path, 0)
    with pytest.raises(ShapeError, match="observation of the data"):
        ask(SHIPPED, lambda rows: rows[:, 0], data=tmp_path)


def test_a_file_that_cannot_be_run_is_refused(tmp_path):
    (tmp_path / "rewards.py").write_text("import nothing_of_this_name")
    with pytest.raises(ConfigError, match="cannot be run: ModuleNotFoundError"):
        reward_function(f"{tmp_path}/rewards.py:near")
    for name in ("rewards", "rewards:near", "rewards.py:", "rewards.txt:near"):
        with pytest.raises(ConfigError, match="is no function of a file"):
            reward_function(name)
    with pytest.raises(ConfigError, match="cannot be run: FileNotFoundError"):
        reward_function(f"{tmp_path}/absent.py:near")


def test_a_reward_that_the_data_do_not_show_and_no_episodes_are_refused(data):
    with pytest.raises(TaskNotInferable):
        ask(SHIPPED, lambda rows: torch.zeros(len(rows)), data=data)
    with pytest.raises(RangeError, match="episodes"):
        ask(SHIPPED, lambda rows: rows[:, 0], data=data, episodes=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--episodes", "3"), "counts only with --reward"),
        (("--data", "somewhere"), "counts only with --reward"),
        (("--seed", "3"), "counts only with --guard visits or --reward"),
        (("--reward", "rewards.py:slow", "--starts", "3"), "counts only with --guard visits"),
        (("--reward", "rewards.py:slow", "--guard", "visits"), "leave out --guard"),
    ],
)
def test_options_that_count_for_nothing_are_refused(options, message, capsys):
    assert main(["evaluate", "fb", str(SHIPPED), *options]) == 1
    assert message in capsys.readouterr().err

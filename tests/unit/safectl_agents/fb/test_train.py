import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from safectl.config import from_command_line, load_toml
from safectl.errors import ConfigError, FileFormatError, RangeError, ShapeError
from safectl.files import write_json
from safectl.models import UpdateSettings
from safectl_agents.bench.benchmark import results_folder
from safectl_agents.bench.fb_visits import SHIPPED
from safectl_agents.cli import main
from safectl_agents.commands import train_fb
from safectl_agents.fb.collect import CollectConfig, collect
from safectl_agents.fb.episodes import Transitions
from safectl_agents.fb.evaluate import infer_tasks, make_labels, score
from safectl_agents.fb.methods import METHODS
from safectl_agents.fb.report import read_evaluations
from safectl_agents.fb.settings import FBConfig, read_settings
from safectl_agents.fb.train import load_config, load_run, train, train_as
from safectl_agents.one_writer import one_writer
from safectl_agents.training_state import checkpoints

SMALL = FBConfig(
    update=UpdateSettings(method="vc-fb"),
    nz=8,
    hidden=16,
    embedding=8,
    backward_hidden=16,
    batch=16,
    steps=6,
    labels=50,
    evaluate_every=100,
    episodes=2,
    checkpoint_every=3,
    log_every=2,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return collect(CollectConfig(collector="random", episodes=1), folder)


@pytest.mark.slow
@pytest.mark.parametrize("actor", ["value", "aw"])
def test_a_run_that_was_stopped_gives_the_same_bits_and_logs(data, tmp_path, actor):
    shown: list[int] = []
    config = replace(SMALL, update=replace(SMALL.update, actor=actor))
    train(config, data, tmp_path / "whole", progress=lambda step, _: shown.append(step))
    train(replace(config, steps=3), data, tmp_path / "parts")
    train(config, data, tmp_path / "parts")
    last = [
        load_file(checkpoints(tmp_path / name / "checkpoints")[-1] / "state.safetensors")
        for name in ("whole", "parts")
    ]
    assert last[0].keys() == last[1].keys()
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())
    logged = [(tmp_path / name / "updates.csv").read_text() for name in ("whole", "parts")]
    assert set(logged[0].splitlines()) <= set(logged[1].splitlines())
    assert shown == [2, 4, 6]
    assert list(read_evaluations(tmp_path / "parts").steps) == [3, 6]
    assert list((tmp_path / "whole" / "tensorboard").iterdir())


@pytest.mark.slow
def test_what_was_logged_after_the_last_checkpoint_is_logged_once(data, tmp_path):
    train(SMALL, data, tmp_path)
    (last,) = checkpoints(tmp_path / "checkpoints")[-1:]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    before = (tmp_path / "updates.csv").read_text()
    train(SMALL, data, tmp_path)
    assert (tmp_path / "updates.csv").read_text() == before


@pytest.mark.slow
def test_a_run_keeps_its_settings_and_names_what_is_wrong(data, tmp_path):
    train(replace(SMALL, steps=1), data, tmp_path)
    with pytest.raises(ConfigError, match="nz"):
        train(replace(SMALL, nz=9), data, tmp_path)
    other = collect(CollectConfig(collector="random", episodes=1, seed=1), tmp_path / "other")
    with pytest.raises(ConfigError, match="data were"):
        train(replace(SMALL, steps=2), other, tmp_path)
    with pytest.raises(ShapeError, match="observation of the data"):
        train(replace(SMALL, domain="walker"), data, tmp_path / "walker")
    (checkpoints(tmp_path / "checkpoints")[-1] / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(FileFormatError, match="truncated or altered"):
        load_run(tmp_path)
    with pytest.raises(FileFormatError, match="does not exist"):
        load_run(tmp_path / "none")
    train_as("td3", METHODS["td3"].make, replace(SMALL, steps=1), data, tmp_path / "td3")
    with pytest.raises(FileFormatError, match="training of td3"):
        load_run(tmp_path / "td3")
    with pytest.raises(ConfigError, match="not of forward-backward"):
        train(replace(SMALL, steps=2), data, tmp_path / "td3")


@pytest.mark.slow
def test_data_that_changed_are_refused_when_a_run_goes_on(data, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(data, copied)
    train(replace(SMALL, steps=1), copied, tmp_path / "run")
    (path,) = copied.iterdir()
    path.rename(copied / path.name.replace("episode_000000", "episode_000001"))
    with pytest.raises(ConfigError, match="are not those of when the run began"):
        train(replace(SMALL, steps=2), copied, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    del stored["data_sha256"]
    write_json(tmp_path / "run" / "config.json", stored)
    train(replace(SMALL, steps=2), copied, tmp_path / "run")
    assert "data_sha256" in (tmp_path / "run" / "config.json").read_text()


def test_a_scale_that_does_not_fit_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(ShapeError, match="observation_scale"):
        train(replace(SMALL, observation_scale=(1.0, 2.0)), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_know_their_domain():
    assert FBConfig(domain="point_mass_maze").gamma == 0.99
    assert FBConfig(domain="walker").gamma == 0.98
    assert FBConfig(domain="point_mass_maze", discount=0.98).gamma == 0.98
    assert FBConfig(domain="walker").sizes(24, 6).nz == 50
    assert FBConfig().sizes(4, 2).nz == 100
    with pytest.raises(RangeError, match="batch"):
        FBConfig(batch=1)


def test_there_is_one_discount_and_runs_that_stored_two_are_still_read(tmp_path, capsys):
    defaults = train_fb.DEFAULTS
    with pytest.raises(SystemExit):
        from_command_line(
            defaults, ["--update.discount", "0.98"], program="safectl train fb", description=""
        )
    assert "--update.discount" in capsys.readouterr().err
    (tmp_path / "two.toml").write_text("[run.update]\ndiscount = 0.98\n")
    with pytest.raises(ConfigError, match=r"run\.update\.discount"):
        load_toml(defaults, tmp_path / "two.toml")
    config, model, step = load_run(SHIPPED)
    assert json.loads((SHIPPED / "config.json").read_text())["update"]["discount"] == 0.98
    assert (config.gamma, model.sizes.nz, step) == (0.99, 64, 36_000)
    result = results_folder() / "fb/point_mass_maze/vc-fb/seed-0/result.json"
    stored = json.loads(result.read_text())["config"]
    assert read_settings(stored, source="result").update.precision == "bfloat16"


@pytest.mark.parametrize("wrong", [{"discount": 0.0}, {"discount": 1.0}, {"nz": 0}])
def test_zero_is_not_the_domain_s_own_setting(wrong):
    with pytest.raises(RangeError, match=next(iter(wrong))):
        FBConfig(**wrong)


@pytest.mark.slow
def test_a_task_that_the_labels_do_not_show_is_left_out(data, tmp_path):
    model = train(replace(SMALL, steps=1), data, tmp_path)
    zero = np.zeros((20, 18))
    transitions = Transitions(*(np.zeros((20, n), np.float32) for n in (4, 2, 4, 1)), zero)
    labels = make_labels("walker", transitions._replace(action=np.zeros((20, 6), np.float32)), 9, 0)
    assert labels.observation.shape == (9, 4)
    rewards = {name: torch.zeros(9) for name in labels.rewards}
    rewards["stand"] = torch.ones(9)
    assert list(infer_tasks(model, "walker", labels._replace(rewards=rewards))) == ["stand"]
    assert len(infer_tasks(model, "point_mass_maze", labels)) == 4
    with pytest.raises(FileFormatError, match="states"):
        make_labels("walker", transitions._replace(physics=None), 9, 0)


def test_a_score_is_the_mean_of_the_middle_half():
    assert score(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5


@pytest.mark.slow
def test_the_commands_collect_train_and_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "--collector", "random", "--episodes", "1"]) == 0
    small = "--nz 8 --hidden 16 --embedding 8 --batch 16 --steps 4 --episodes 2 --labels 50"
    words = ["train", "fb", "--update.method", "mc-fb", *small.split()]
    words += ["--data", "data/point_mass_maze/random/buffer"]
    assert main(words) == 0
    assert (tmp_path / "runs/point_mass_maze-mc-fb-0/curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "scripted controller" in capsys.readouterr().out
    assert main(["evaluate", "fb", "runs/point_mass_maze-mc-fb-0", "--json"]) == 0
    assert '"random actions"' in capsys.readouterr().out
    assert main(["evaluate", "fb"]) == 1
    assert main([*words, "--update.actor", "aw", "--update.temperature", "0.2"]) == 0
    stored = load_config(tmp_path / "runs/point_mass_maze-mc-fb-aw-0")
    assert (stored.update.actor, stored.update.temperature) == ("aw", 0.2)


def test_two_commands_do_not_train_in_one_folder(data, tmp_path):
    folder = tmp_path / "run"
    with one_writer(folder), pytest.raises(ConfigError, match="another command writes there"):
        train(SMALL, data, folder)
    assert not (folder / "config.json").exists()

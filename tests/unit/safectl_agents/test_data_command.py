"""`safectl data`: both kinds, stored where they are asked for, and refusals."""

import json

import minari
import numpy as np
import pytest
import torch
from minari.dataset.minari_dataset import MinariDataset

from safectl.errors import RangeError
from safectl_agents.cli import main
from safectl_agents.diffusion.data import load_dataset, windows
from safectl_agents.diffusion.locomotion_data import LocomotionConfig
from safectl_agents.diffusion.model import load_model


def test_maze_data_are_made_by_one_command(tmp_path, capsys):
    out = tmp_path / "maze"
    words = ["data", "maze2d", "--maze", "open", "--steps", "120", "--stream", "60"]
    assert main([*words, "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    data = load_dataset(out)
    assert said["steps"] == len(data.ends) > 100
    assert not (tmp_path / "maze.parts").exists()
    assert main([*words, "--out", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_locomotion_data_hold_every_checkpoint_of_a_run(tmp_path, capsys):
    out = tmp_path / "hopper"
    words = ["data", "locomotion", "--locomotion.training-steps", "240"]
    words += ["--locomotion.qualities", "2", "--locomotion.rows", "300"]
    words += ["--locomotion.sac.learning-starts", "100", "--out", str(out)]
    assert main(words) == 0
    assert "300 steps" in capsys.readouterr().out
    data = load_dataset(out)
    assert data.observations.shape == (300, 11)
    assert data.actions.shape == (300, 3)
    assert np.abs(data.actions).max() <= 1.0
    assert bool(data.ends[149])  # each checkpoint gives half of the steps
    assert len(windows(data, 4)) > 100
    dataset = MinariDataset(str(out / "data"))
    assert len(dataset.storage.metadata["safectl"]["returns"]) == 2
    first = next(dataset.iterate_episodes())
    assert bool(first.terminations[-1]) or bool(first.truncations[-1])
    assert minari.__version__ in dataset.storage.metadata["minari_version"]
    with pytest.raises(SystemExit):
        main(["train", "value", "--discont", "1"])
    drive_under_a_roof(out, tmp_path / "run", capsys)


def drive_under_a_roof(data, folder, capsys):
    """Planner and value from data, then guided plans that the roof keeps low; all very short."""
    words = ["--preset", "hopper-small", "--dataset", str(data), "--updates", "2", "--batch", "4"]
    assert main(["train", "diffuser", *words, "--folder", str(folder)]) == 0
    assert main(["train", "value", *words, "--folder", str(folder / "value"), "--json"]) == 0
    model, config, spec = load_model(folder / "model")
    assert (spec.nx, spec.nu, config.horizon) == (11, 3, 32)
    step = torch.zeros(1, dtype=torch.long)
    assert bool(model.denoiser(torch.zeros(1, 32, 14), step).isfinite().all())
    capsys.readouterr()
    words = ["evaluate", "diffuser", str(folder / "model"), "--episodes", "2", "--steps", "4"]
    words += ["--value", str(folder / "value" / "model"), "--candidates", "2", "--json"]
    assert main([*words, "--sampler-steps", "5", "--every", "2"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["ros"]["plans_certified"] == 1.0
    assert rows["ros"]["plan_margin"] >= 0.0
    assert rows["ros"]["steps"] == 4.0
    assert rows["ros"]["executed_margin"] > 0.0
    assert main([*words[:3], "--env", "Walker2d-v5"]) == 1
    assert "observation has shape (17,)" in capsys.readouterr().err


def test_unknown_data_are_named_with_the_known_ones(capsys):
    assert main(["data", "maze3d"]) == 1
    assert "did you mean 'maze2d'" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"qualities": 0}, {"rows": 5}, {"exploration": -0.1}])
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(RangeError):
        LocomotionConfig(**changes)

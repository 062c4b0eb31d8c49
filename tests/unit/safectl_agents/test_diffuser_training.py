"""Training of a diffusion model: what it learns, how it goes on, what it refuses."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from safectl.checkpoint import Checkpoint, save_checkpoint
from safectl.config import to_mapping
from safectl.errors import (
    ConfigError,
    FileFormatError,
    NonFiniteError,
    RangeError,
    UnknownNameError,
)
from safectl.planners import limits_normaliser
from safectl.spec import Signal, Spec
from safectl_agents.cli import main
from safectl_agents.diffusion.model import load_model, save_model
from safectl_agents.diffusion.settings import PRESETS, DiffuserConfig, preset
from safectl_agents.diffusion.train import PlanRows, Trainer, make_network, train
from safectl_agents.diffusion.world_model import count_weights

TINY = DiffuserConfig(
    horizon=8,
    diffusion_steps=10,
    channels=16,
    multipliers=(1, 2),
    batch=8,
    learning_rate=1e-3,
    updates=6,
    ema_every=1,
    ema_from=2,
    checkpoint_every=3,
)


def waves() -> PlanRows:
    """Lines with random slopes, one action and one observation that are equal."""
    generator = torch.Generator().manual_seed(0)
    slope = 2.0 * torch.rand(64, 1, generator=generator) - 1.0
    line = slope * torch.linspace(-1.0, 1.0, 8)
    rows = torch.stack([line, line], -1).reshape(-1, 2)
    return PlanRows(rows, torch.arange(0, len(rows), 8))


def nothing(done: int, loss: float) -> None:
    """Watch nothing."""


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tmp_path):
    whole = Trainer(TINY, waves(), nu=1)
    train(whole, tmp_path / "whole", after_update=nothing)
    part = Trainer(dataclasses.replace(TINY, updates=3), waves(), nu=1)
    train(part, tmp_path / "part", after_update=nothing)
    rest = Trainer(TINY, waves(), nu=1)
    train(rest, tmp_path / "part", after_update=nothing)
    assert rest.update == whole.update == 6
    for ours, theirs in zip(rest.average.parameters(), whole.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_average_is_a_copy_at_first_and_lags_later(tmp_path):
    trainer = Trainer(TINY, waves(), nu=1)

    def difference() -> float:
        pairs = zip(trainer.average.parameters(), trainer.network.parameters(), strict=True)
        return max(float((a - b).detach().abs().max()) for a, b in pairs)

    trainer.step()
    assert difference() == 0.0
    trainer.step()
    trainer.step()
    assert difference() > 0.0


def test_loss_falls_on_lines(tmp_path):
    config = dataclasses.replace(TINY, updates=150, batch=32)
    losses = []
    trainer = Trainer(config, waves(), nu=1)
    train(trainer, tmp_path / "run", after_update=lambda done, loss: losses.append(loss))
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_other_settings_do_not_go_on_with_a_run(tmp_path):
    train(Trainer(TINY, waves(), nu=1), tmp_path, after_update=nothing)
    other = Trainer(dataclasses.replace(TINY, batch=4), waves(), nu=1)
    with pytest.raises(ConfigError, match="other settings"):
        train(other, tmp_path, after_update=nothing)


def test_a_damaged_state_gives_a_clear_error(tmp_path):
    train(Trainer(TINY, waves(), nu=1), tmp_path, after_update=nothing)
    file = tmp_path / "state" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FileFormatError, match="cannot be read"):
        Trainer(TINY, waves(), nu=1).load(tmp_path / "state")


@pytest.mark.parametrize("lost", ["update", "config"])
def test_a_state_that_lost_a_part_gives_a_clear_error(tmp_path, lost):
    train(Trainer(TINY, waves(), nu=1), tmp_path, after_update=nothing)
    file = tmp_path / "state" / "state.json"
    file.write_text(
        json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != lost})
    )
    with pytest.raises(FileFormatError, match="cannot be read"):
        Trainer(TINY, waves(), nu=1).load(tmp_path / "state")


def test_the_state_of_another_network_gives_a_clear_error(tmp_path):
    train(Trainer(TINY, waves(), nu=1), tmp_path, after_update=nothing)
    file = tmp_path / "state" / "state.safetensors"
    tensors = load_file(file)
    del tensors["average.head.1.bias"]
    save_file(tensors, file)
    with pytest.raises(FileFormatError, match="other weights"):
        Trainer(TINY, waves(), nu=1).load(tmp_path / "state")


def test_the_network_is_compiled_only_where_that_is_asked_for(monkeypatch):
    asked = []

    def compile_(network, *, mode):
        asked.append(mode)
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    plain = Trainer(TINY, waves(), nu=1)
    assert asked == []
    compiled = Trainer(TINY, waves(), nu=1, compiles=True)
    assert asked == ["default"]  # CUDA graphs are for a GPU
    assert compiled.step() == plain.step()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["medium", "large"])
def test_a_full_preset_starts_and_goes_on(tmp_path, name):
    words = ["train", "diffuser", "--preset", name, "--data-steps", "10000", "--batch", "2"]
    words += ["--folder", str(tmp_path)]
    assert main([*words, "--updates", "1"]) == 0
    weights = load_file(tmp_path / "state" / "state.safetensors")
    assert main([*words, "--updates", "2"]) == 0
    assert json.loads((tmp_path / "state" / "state.json").read_text())["update"] == 2
    after = load_file(tmp_path / "state" / "state.safetensors")
    assert not torch.equal(weights["network.head.1.bias"], after["network.head.1.bias"])
    model, config, _ = load_model(tmp_path / "model")
    assert (model.horizon, len(model.kept)) == (config.horizon, 256)
    assert count_weights(model.denoiser) == 3_682_118


def test_data_without_a_plan_are_refused():
    rows = waves()._replace(starts=torch.zeros(0, dtype=torch.long))
    with pytest.raises(RangeError, match="at least one episode"):
        Trainer(TINY, rows, nu=1)


def test_nan_in_the_data_stops_the_training():
    rows = waves()
    rows.transitions[:] = torch.nan
    with pytest.raises(NonFiniteError, match="loss"):
        Trainer(TINY, rows, nu=1).step()


def test_a_saved_model_plans_again(tmp_path):
    network = make_network(TINY, 2)
    normaliser = limits_normaliser(torch.tensor([[-1.0, -2.0], [1.0, 3.0]]))
    spec = Spec((Signal("place", "m", -2.0, 3.0),), (Signal("force", "N", -1.0, 1.0),), 0.01)
    save_model(tmp_path / "model", network, TINY, normaliser, spec, {"command": "none"})
    model, config, found = load_model(tmp_path / "model")
    assert (config, found) == (TINY, spec)
    plan, step = torch.randn(1, 8, 2), torch.zeros(1, dtype=torch.long)
    expected = network(plan, step)
    torch.testing.assert_close(model.denoiser(plan, step), expected, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(model.normaliser.scale, normaliser.scale)


@pytest.mark.parametrize(
    "scaling",
    [
        None,
        {"centre": [0.0, 0.5]},
        {"centre": [0.0], "scale": [1.0], "is_bounded": True},
        {"centre": "none", "scale": [1.0, 2.5], "is_bounded": True},
    ],
)
def test_a_model_without_its_normaliser_is_refused(tmp_path, scaling):
    stored = {"diffuser": to_mapping(TINY)} | ({"normaliser": scaling} if scaling else {})
    spec = Spec((Signal("place", "m", -2.0, 3.0),), (Signal("force", "N", -1.0, 1.0),), 0.01)
    weights = make_network(TINY, 2).state_dict()
    save_checkpoint(Checkpoint(spec, stored, weights), tmp_path / "model")
    with pytest.raises(FileFormatError, match="holds no normaliser of 2 entries"):
        load_model(tmp_path / "model")


def test_another_checkpoint_is_no_diffusion_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"version": 2}))
    with pytest.raises(FileFormatError):
        load_model(tmp_path)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_horizon_that_its_network_can_halve(name):
    config = preset(name)
    assert config.horizon % 2 ** (len(config.multipliers) - 1) == 0


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(UnknownNameError, match="umaze-small"):
        preset("umaze-smal")

"""World models of one and two streams: equal size, decoupled training, honest measures."""

import dataclasses
import json

import pytest
import torch

from safectl.errors import ConfigError, FileFormatError, RangeError
from safectl.planners import limits_normaliser
from safectl.spec import Signal, Spec
from safectl_agents.cli import main
from safectl_agents.diffusion.plan_data import PlanData
from safectl_agents.diffusion.train import PlanRows
from safectl_agents.diffusion.world_compare import compare_streams, load_world_model, world_data
from safectl_agents.diffusion.world_model import (
    WorldModel,
    WorldModelConfig,
    count_weights,
    cut,
    make_world_model,
    measure_world_model,
    split,
    train_world_model,
)

TINY = WorldModelConfig(horizon=2, width=16, diffusion_steps=4, batch=32, updates=60)


def drift() -> PlanData:
    """A point that the action moves by itself, row by row, in episodes of 10 rows."""
    generator = torch.Generator().manual_seed(0)
    action = 0.1 * (2.0 * torch.rand(60, 10, 2, generator=generator) - 1.0)
    place = torch.cat([torch.zeros(60, 1, 2), action[:, :-1].cumsum(1)], dim=1)
    rows = torch.cat([action, place], dim=-1).reshape(-1, 4)
    starts = torch.arange(len(rows)).reshape(60, 10)[:, :8].flatten()
    normaliser = limits_normaliser(rows)
    spec = Spec(
        tuple(Signal(name, "m", -1.0, 1.0) for name in ("x", "y")),
        tuple(Signal(name, "m", -0.1, 0.1) for name in ("dx", "dy")),
        0.1,
    )
    return PlanData(PlanRows(normaliser.normalise(rows), starts), normaliser, spec)


def nothing(done: int, loss: float) -> None:
    """Watch nothing."""


def test_one_stream_has_as_many_weights_as_two_to_one_per_cent():
    config = WorldModelConfig()
    two = count_weights(make_world_model(config, 4, 2))
    one = make_world_model(dataclasses.replace(config, streams=1), 4, 2)
    assert one.predictor is None
    assert count_weights(one) == pytest.approx(two, rel=0.01)


def test_windows_hold_the_first_state_all_actions_and_the_states_that_follow():
    data = drift()
    condition, states = cut(data, torch.tensor([11]), 2)
    rows = data.rows.transitions
    torch.testing.assert_close(condition[0, :2], rows[11, 2:])
    torch.testing.assert_close(condition[0, 2:], rows[11:13, :2].flatten())
    torch.testing.assert_close(states[0], rows[12:14, 2:])


def test_no_row_is_both_learnt_and_measured():
    learnt, held = split(TINY, drift())
    assert int(learnt.max()) + TINY.horizon < int(held.min())


def test_data_without_windows_on_both_sides_are_refused():
    with pytest.raises(RangeError, match="more than 2 steps"):
        split(dataclasses.replace(TINY, held_out=0.999), drift())


def test_the_denoiser_sends_no_gradient_into_the_predictor():
    data, config = drift(), dataclasses.replace(TINY, updates=5)
    alone = make_world_model(config, 2, 2)
    trained = train_world_model(config, data, after_update=nothing)
    other = train_world_model(
        dataclasses.replace(config, diffusion_steps=2), data, after_update=nothing
    )
    assert alone.predictor is not None
    for first, ours, theirs in zip(
        alone.predictor.parameters(),
        trained.predictor.parameters(),
        other.predictor.parameters(),
        strict=True,
    ):
        assert not torch.equal(first, ours)
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("streams", [1, 2])
def test_training_lowers_the_error_and_a_measure_repeats(streams):
    config = dataclasses.replace(TINY, streams=streams, updates=150, learning_rate=1e-2)
    data = drift()
    untrained = make_world_model(config, 2, 2).eval().requires_grad_(False)
    before = measure_world_model(untrained, config, data, windows=64)
    trained = train_world_model(config, data, after_update=nothing)
    after = measure_world_model(trained, config, data, windows=64)
    assert after.error < 0.7 * before.error
    assert (after.predictor_error == after.predictor_error) == (streams == 2)
    assert measure_world_model(trained, config, data, windows=64).error == after.error


def test_a_model_that_ignores_the_noise_has_no_spread():
    class Sure(WorldModel):
        def forward(self, noisy, step, condition, prediction):
            return condition[:, :4].reshape(noisy.shape)

    sure = Sure(2, 2, 2, 16, has_predictor=False)
    found = measure_world_model(sure, dataclasses.replace(TINY, streams=1), drift(), windows=16)
    assert found.spread == pytest.approx(0.0, abs=1e-6)
    assert found.error > 0.0


@pytest.mark.slow
def test_trained_models_are_kept_and_damaged_or_other_ones_refused(tmp_path):
    config = dataclasses.replace(TINY, updates=2)
    counted = []
    runs = compare_streams(config, tmp_path, data_steps=1_000, seeds=1, after_update=counted.append)
    assert {name: len(found) for name, found in runs.items()} == {"one stream": 1, "two streams": 1}
    assert counted[-1] == 4
    again = compare_streams(config, tmp_path, data_steps=1_000, seeds=1)
    assert again["one stream"][0].error == runs["one stream"][0].error
    data = world_data(config, tmp_path, "umaze", 1_000)
    with pytest.raises(ConfigError, match="other settings"):
        load_world_model(dataclasses.replace(config, batch=8), tmp_path, data)
    file = tmp_path / "streams-2-seed-0" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_world_model(config, tmp_path, data)


@pytest.mark.slow
def test_the_command_compares_and_draws(tmp_path, capsys):
    words = ["train", "world-model", "--folder", str(tmp_path), "--data-steps", "1000"]
    words += ["--updates", "2", "--seeds", "1", "--width", "16", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["updates"] == 2
    assert set(found["runs"]) == {"one stream", "two streams"}
    assert (tmp_path / "samples.png").stat().st_size > 5_000


@pytest.mark.parametrize("options", [{"streams": 3}, {"updates": 0}, {"held_out": 1.0}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(RangeError):
        dataclasses.replace(TINY, **options)

"""What a cost critic predicts beside what happens: outcomes, bins, the command, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from safectl.errors import ConfigError, NonFiniteError
from safectl_agents.acs import cost_calibration, seed_run
from safectl_agents.acs.cost_calibration import _binned, calibrate, known_steps, outcome
from safectl_agents.acs.evaluation import Episode, play
from safectl_agents.acs.saved import restore
from safectl_agents.acs.seed_run import RunSettings, run_seed
from safectl_agents.acs.tasks import find_task
from safectl_agents.cli import main
from safectl_agents.models import make_env

RUN = RunSettings(
    "speed-limit",
    "acs",
    steps=40,
    seed=3,
    evaluate_every=20,
    episodes=1,
    checkpoint_every=20,
    warmup_ratio=0.0,
)


@pytest.fixture(scope="module")
def seed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "seed-3"
    task = replace(find_task("speed-limit"), learning_starts=5, hidden=(8,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seed_run, "find_task", lambda _: task)
        run_seed(RUN, folder, command="")
        yield folder


def test_outcomes_are_discounted_sums_or_the_first_violation():
    episode = Episode(0.0, [0.0, 1.0, 0.0, 1.0])
    assert outcome(episode, "sum", 0.5) == pytest.approx([0.625, 1.25, 0.5, 1.0])
    assert outcome(episode, "first_hit", 0.5) == pytest.approx([0.5, 1.0, 0.5, 1.0])


def test_only_first_steps_count_whose_future_is_known():
    assert known_steps(10, 0.5) == 6  # 0.5^5 < 0.05
    assert known_steps(500, 0.99) == 202
    assert known_steps(200, 0.99) == known_steps(10, 1.0) == 0


def test_a_calibrated_critic_is_calibrated_also_where_a_violation_ends_the_episode():
    hazard, discount, longest = 0.002, 0.99, 500
    generator, pairs = np.random.default_rng(0), []
    exact = hazard / (1.0 - discount * (1.0 - hazard))
    for _ in range(2_000):
        steps = min(int(generator.geometric(hazard)), longest)
        ends = [0.0] * (steps - 1) + [float(steps < longest)]
        happened = outcome(Episode(0.0, ends), "sum", discount)[: known_steps(longest, discount)]
        pairs.append(np.stack([np.full(len(happened), exact), happened], 1))
    assert _binned(np.concatenate(pairs), 1, 0).error < 0.1 * exact


def test_bins_hold_equally_many_steps_and_the_error_is_their_mean_distance():
    predicted = np.linspace(0.0, 1.0, 100)
    exact = _binned(np.stack([predicted, predicted], 1), 1, 0)
    assert exact.error == pytest.approx(0.0)
    assert exact.rank_correlation == pytest.approx(1.0)
    assert exact.steps.tolist() == [10] * 10
    low = _binned(np.stack([predicted, predicted + 0.25], 1), 1, 0)
    assert low.error == pytest.approx(0.25)
    flipped = _binned(np.stack([predicted, 1.0 - predicted], 1), 1, 0)
    assert flipped.rank_correlation == pytest.approx(-1.0)
    equal = np.stack([np.full(100, 0.5), np.repeat([0.0, 1.0], 50)], 1)
    assert _binned(equal, 1, 0).error == pytest.approx(0.0)
    with pytest.raises(NonFiniteError, match="cost critic"):
        _binned(np.full((20, 2), np.nan), 1, 0)


def test_predictions_are_those_of_the_executed_actions(seed):
    found = calibrate(seed, episodes=1, seed=5)
    _, model = restore(seed)
    values = []

    def watch(_, rows, actions):
        low, high = model.action_space.low, model.action_space.high
        scaled = 2.0 * (actions - low) / (high - low) - 1.0
        inputs = (torch.as_tensor(part).float() for part in (rows, scaled))
        values.append(float(model.lower.learner.critic_target(*inputs)))

    play(model, [make_env("safectl/SpeedLimit-v0")], 5, guarded=True, watch=watch)
    counted = np.sort(values[: known_steps(len(values), model.lower.learner.settings.discount)])
    expected = [part.mean() for part in np.array_split(counted, 10)]
    assert found.predicted == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_episodes_too_short_for_the_discount_are_refused(seed, monkeypatch):
    monkeypatch.setattr(cost_calibration, "known_steps", lambda *_: 9)
    with pytest.raises(ConfigError, match="the future of 9 of them is known"):
        calibrate(seed, episodes=1, seed=0)


def test_the_command_leaves_table_and_picture(seed, capsys):
    words = ["experiment", "calibration", str(seed), "--episodes", "1"]
    assert main(words) == 0
    assert "rank correlation" in capsys.readouterr().out
    table = json.loads((seed / "calibration.json").read_text())
    assert len(table["predicted"]) == len(table["observed"]) == 10
    assert (seed / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["table"] == str(seed / "calibration.json")


def test_a_method_without_a_cost_critic_is_refused(seed, tmp_path, capsys):
    folder = tmp_path / "layer"
    run_seed(replace(RUN, method="safety-layer"), folder, command="")
    with pytest.raises(ConfigError, match="no cost critic"):
        calibrate(folder, episodes=1, seed=0)
    assert main(["experiment", "calibration", str(folder), "--episodes", "0"]) == 1
    assert "episodes" in capsys.readouterr().err

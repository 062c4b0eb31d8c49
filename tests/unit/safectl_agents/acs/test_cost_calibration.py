"""What a cost critic predicts beside what happens: outcomes, bins, the command, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest

from safectl.errors import ConfigError, RangeError
from safectl_agents.acs import seed_run
from safectl_agents.acs.cost_calibration import _binned, calibrate, outcome
from safectl_agents.acs.evaluation import Episode
from safectl_agents.acs.seed_run import RunSettings, run_seed
from safectl_agents.acs.tasks import find_task
from safectl_agents.cli import main

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


def test_steps_whose_future_a_time_limit_hides_do_not_count():
    episode = Episode(0.0, [0.0] * 10, cut=True)
    assert len(outcome(episode, "sum", 0.5)) == 5  # 0.5^5 < 0.05
    assert len(outcome(episode, "sum", 0.99)) == 0
    assert len(outcome(episode._replace(cut=False), "sum", 0.99)) == 10


def test_bins_hold_equally_many_steps_and_the_error_is_their_mean_distance():
    predicted = np.linspace(0.0, 1.0, 100)
    exact = _binned(np.stack([predicted, predicted], 1), 10, 1, 0)
    assert exact.error == pytest.approx(0.0)
    assert exact.rank_correlation == pytest.approx(1.0)
    assert exact.steps.tolist() == [10] * 10
    low = _binned(np.stack([predicted, predicted + 0.25], 1), 10, 1, 0)
    assert low.error == pytest.approx(0.25)
    flipped = _binned(np.stack([predicted, 1.0 - predicted], 1), 10, 1, 0)
    assert flipped.rank_correlation == pytest.approx(-1.0)
    with pytest.raises(RangeError, match="10 steps or more"):
        _binned(np.zeros((9, 2)), 10, 1, 0)


def test_predictions_are_those_of_the_executed_actions(seed):
    found = calibrate(seed, episodes=2, seed=5)
    again = calibrate(seed, episodes=2, seed=5)
    assert found.predicted == pytest.approx(again.predicted)
    assert (np.diff(found.predicted) >= 0.0).all()
    assert found.steps.sum() <= 2 * 500


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

"""Success and collisions of the tasks that report them, from an episode to the table."""

import numpy as np
import pytest
from stable_baselines3 import TD3

from safectl.errors import FileFormatError
from safectl_agents.acs import curve, seed_run
from safectl_agents.acs.evaluation import Episode, play, summarise
from safectl_agents.acs.report import summarise as summarise_seeds
from safectl_agents.acs.report import table
from safectl_agents.acs.seed_run import RunSettings, run_seed
from safectl_agents.acs.tasks import find_task
from safectl_agents.models import make_env


def _seed(**outcomes):
    final = {"return_mean": 0.0, "cost_mean": 0.0, "violation_rate": 0.0}
    return {
        "settings": {"seed": 0, "steps": 1},
        "training_violations": 0,
        "training_cost_rate": 0.0,
        "steps_per_second": 1.0,
        "final": final | {"safe_share": 1.0, "corrected_share": 0.0} | outcomes,
    }


def test_an_episode_ends_with_success_and_collisions():
    env = make_env("safectl/JakaReach-v0")
    model = TD3("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    (episode,) = play(model, [env], 0, guarded=False)
    assert (episode.success, len(episode.costs)) == (0.0, 500)
    scores = summarise([episode, episode._replace(success=1.0, collisions=episode.collisions + 2)])
    assert scores.success_share == 0.5
    assert scores.collisions_mean == episode.collisions + 1 >= 1.0


def test_a_task_without_targets_has_no_success():
    env = make_env("safectl/SpeedLimit-v0")
    model = TD3("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    scores = summarise(play(model, [env], 0, guarded=False))
    assert np.isnan([scores.success_share, scores.collisions_mean]).all()


def test_the_table_tells_what_every_seed_reports():
    jaka = find_task("jaka")
    told = _seed(success_share=0.75, collisions_mean=2.0)
    whole = summarise_seeds([told], jaka)
    part = summarise_seeds([told, _seed(success_share=None, collisions_mean=None)], jaka)
    assert (whole["success_share"]["mean"], whole["collisions_mean"]["mean"]) == (0.75, 2.0)
    assert "| 0.75 | 2 |" in table({"acs": whole})
    assert "success_share" not in part, "one seed of two is no mean"
    assert "success" not in table({"acs": whole, "td3": part})
    assert "success_share" not in summarise_seeds([_seed()], jaka), "of an earlier version"


def test_a_curve_of_another_version_is_read_but_not_continued(tmp_path):
    row = curve.Row(10, summarise([Episode(0.0, [0.0])]), *(0.0,) * 2, 0, *(0.0,) * 6)
    curve.append(tmp_path / "new.csv", row)
    old = "".join(
        ",".join(line.split(",")[:11] + line.split(",")[13:])
        for line in (tmp_path / "new.csv").read_text().splitlines(keepends=True)
    )
    assert "success_share" not in old
    (tmp_path / "old.csv").write_text(old)
    (found,) = curve.read(tmp_path / "old.csv")
    assert np.isnan(found.scores.success_share)
    for whole in (tmp_path / "new.csv", tmp_path / "absent.csv"):
        curve.require_columns(whole)
    with pytest.raises(FileFormatError, match="columns, as those of another version"):
        curve.require_columns(tmp_path / "old.csv")


def test_a_run_of_another_version_is_refused_before_it_trains(tmp_path, monkeypatch):
    (tmp_path / "curve.csv").write_text("step,return_mean\n10,1.0\n")
    monkeypatch.setattr(seed_run, "rewind", lambda *_: None)
    monkeypatch.setattr(seed_run._Run, "segment", lambda *_: pytest.fail("it trained"))
    with pytest.raises(FileFormatError, match="another version"):
        run_seed(RunSettings("speed-limit", "td3", steps=10, seed=0), tmp_path, command="")

"""Runs that are killed and go on, their files, tables and refusals."""

import csv
import json
import os
import select
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from subprocess import DEVNULL, PIPE, Popen
from threading import Event

import pytest
from rich.console import Console
from safetensors.torch import load_file

from safectl.errors import ConfigError, FileFormatError, RangeError, UnknownNameError
from safectl.files import write_json
from safectl_agents import pool
from safectl_agents.acs import curve, experiment, seed_run
from safectl_agents.acs.evaluation import Episode, recovery_steps, summarise
from safectl_agents.acs.experiment import Run, plan, run_all
from safectl_agents.acs.methods import Method
from safectl_agents.acs.ppo import ACSPPO
from safectl_agents.acs.report import read_results, report
from safectl_agents.acs.report import summarise as summarise_seeds
from safectl_agents.acs.seed_run import RunSettings, final_rows, is_finished, run_seed
from safectl_agents.acs.tasks import find_task
from safectl_agents.acs.td3 import ACSTD3
from safectl_agents.cli import main
from safectl_agents.one_writer import one_writer

QUICK = RunSettings(
    "speed-limit",
    "acs",
    steps=40,
    seed=0,
    evaluate_every=10,
    episodes=1,
    checkpoint_every=20,
    warmup_ratio=0.0,
)


@pytest.fixture
def _early(monkeypatch):
    """Let updates begin at step 5 with small networks."""
    task = replace(find_task("speed-limit"), learning_starts=5, hidden=(8,))
    monkeypatch.setattr(seed_run, "find_task", lambda _: task)


class Killed(BaseException):
    """Stands for a signal."""


def _columns_without_clock(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.endswith(("second", "_s"))} for row in rows]


@pytest.mark.usefixtures("_early")
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    kept = []
    monkeypatch.setattr(
        seed_run.shutil, "rmtree", lambda path, **_: kept.append(path)
    )  # the last checkpoints stay for the comparison
    run_seed(QUICK, whole, command="")
    append, count = curve.append, []

    def kill_at_third(path, row):
        size = append(path, row)
        count.append(row)
        if len(count) == 3:
            raise Killed
        return size

    monkeypatch.setattr(curve, "append", kill_at_third)
    with pytest.raises(Killed):
        run_seed(QUICK, cut, command="")
    assert [row.step for row in curve.read(cut / "curve.csv")] == [10, 20, 30]
    run_seed(QUICK, cut, command="")
    assert is_finished(cut)
    assert _columns_without_clock(cut / "curve.csv") == _columns_without_clock(whole / "curve.csv")
    for name in ("policy", "optimizers"):
        files = [sorted((f / "checkpoints").glob("step-*"))[-1] for f in (whole, cut)]
        ours, theirs = (load_file(file / f"{name}.safetensors") for file in files)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours)
    assert kept


@pytest.mark.usefixtures("_early")
def test_a_finished_seed_is_left_alone_and_another_setting_refused(tmp_path):
    run_seed(replace(QUICK, steps=10), tmp_path, command="the command")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["command"] == "the command"
    assert result["settings"]["steps"] == 10
    before = (tmp_path / "curve.csv").read_bytes()
    run_seed(replace(QUICK, steps=10), tmp_path, command="")
    assert (tmp_path / "curve.csv").read_bytes() == before
    other = replace(QUICK, steps=10, eps=0.2)
    with pytest.raises(ConfigError, match=r"eps was 0\.1"):
        run_all([Run(other, tmp_path)], jobs=1, command="", console=Console(quiet=True))
    for _ in ("finished", "cut short"):
        with pytest.raises(ConfigError, match=r"eps was 0\.1"):
            run_seed(other, tmp_path, command="")
        (tmp_path / "result.json").unlink(missing_ok=True)


def test_no_seed_is_begun_after_one_has_failed(tmp_path, monkeypatch):
    begun, asked_to_stop = [], Event()

    class Pool(ThreadPoolExecutor):
        def __init__(self, jobs, mp_context, initializer):
            super().__init__(jobs)

        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            asked_to_stop.set()
            super().shutdown(wait)

    def train(settings, folder, *, command):
        begun.append(settings.seed)
        if settings.seed == 0:
            raise ConfigError("seed 0", "fails")
        asked_to_stop.wait(60.0)

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(experiment, "run_seed", train)
    runs = plan(QUICK, tmp_path, tasks=["speed-limit"], methods=["acs"], seeds=range(5))
    with pytest.raises(ConfigError, match="seed 0"):
        run_all(runs, jobs=1, command="", console=Console(quiet=True))
    assert begun in ([0], [0, 1])  # seed 1 may have followed before the error was seen


@pytest.mark.usefixtures("_early")
def test_a_run_killed_before_its_result_still_leaves_its_model(tmp_path, monkeypatch):
    killed = []

    def kill(settings, folder, model, command):
        killed.append(model)
        raise Killed

    settings = replace(QUICK, steps=10)
    with monkeypatch.context() as patch:
        patch.setattr(seed_run, "_finish", kill)
        with pytest.raises(Killed):
            run_seed(settings, tmp_path, command="")
    run_seed(settings, tmp_path, command="")
    assert is_finished(tmp_path)
    loaded = ACSTD3.load(tmp_path / "model.zip").policy.state_dict()
    expected = killed[0].policy.state_dict()
    assert all(loaded[name].equal(weight) for name, weight in expected.items())


@pytest.mark.usefixtures("_early")
def test_the_cost_rate_is_that_of_the_steps_really_made(tmp_path, monkeypatch):
    def eight(env, context):
        options = {"n_steps": 8, "batch_size": 8, "seed": context.seed, "device": "cpu"}
        return ACSPPO("MlpPolicy", env, cost=lambda _: 1.0, **options)

    monkeypatch.setattr(seed_run, "find_method", lambda _: Method("rollouts of 8 steps", eight))
    run_seed(replace(QUICK, method="ppo", steps=10), tmp_path, command="")
    result = json.loads((tmp_path / "result.json").read_text())
    assert curve.read(tmp_path / "curve.csv")[-1].step == 16
    assert result["training_cost_rate"] == result["training_violations"] / 16 == 1.0


@pytest.mark.usefixtures("_early")
def test_a_pretrained_layer_corrects_from_the_first_step(tmp_path):
    run_seed(replace(QUICK, steps=20), tmp_path / "first", command="")
    settings = replace(QUICK, steps=10, seed=1, critic_from=str(tmp_path / "first"))
    assert settings.guard_from == 0
    run_seed(settings, tmp_path / "second", command="")
    assert is_finished(tmp_path / "second")


@pytest.mark.usefixtures("_early")
def test_the_report_tells_mean_deviation_and_every_seed(tmp_path):
    folder = tmp_path / "speed-limit"
    for seed in (0, 1):
        run_seed(replace(QUICK, steps=10, seed=seed), folder / "acs" / f"seed-{seed}", command="")
    path = report(tmp_path, "speed-limit")
    summary = json.loads((folder / "summary.json").read_text())["methods"]["acs"]
    returns = summary["return_mean"]
    assert returns["mean"] == pytest.approx(sum(returns["per_seed"]) / 2)
    assert returns["std"] is not None
    assert "| acs | 2 |" in path.read_text()
    assert (folder / "curves.png").stat().st_size > 1000
    (folder / "acs" / "seed-0" / "curve.csv").write_text("nonsense\n1\n")
    with pytest.raises(FileFormatError):
        report(tmp_path, "speed-limit")
    shutil.rmtree(folder)
    assert report(tmp_path, "speed-limit") is None


@pytest.mark.parametrize(
    ("place", "change", "word"),
    [
        ("acs/seed-1", {"eps": 0.2}, "eps 0.2"),
        ("acs/seed-1", {"critic_from": "a folder"}, "critic_from True"),
        ("usl/seed-0", {"hidden": 64}, "hidden 64"),
    ],
)
def test_seeds_of_unlike_trainings_are_not_compared(tmp_path, place, change, word):
    for name, changed in (("acs/seed-0", {}), ("acs/seed-0-old", {"eps": 9.0}), (place, change)):
        settings = asdict(QUICK) | changed
        write_json(tmp_path / name / "result.json", {"final": {}, "settings": settings})
    with pytest.raises(FileFormatError, match=rf"{place}.* has {word}.*acs/seed-0"):
        read_results(tmp_path)


def test_a_method_with_an_adopted_critic_stands_beside_one_that_has_none(tmp_path):
    for name, critic in (("acs", "a folder"), ("td3", "")):
        settings = asdict(QUICK) | {"critic_from": critic}
        path = tmp_path / name / "seed-0" / "result.json"
        write_json(path, {"final": {}, "settings": settings})
    assert sorted(read_results(tmp_path)) == ["acs", "td3"]
    path.write_text('{"final": {}, "settings": []}')
    with pytest.raises(FileFormatError, match="is no result"):
        read_results(tmp_path)


def test_seeds_unlike_the_finished_ones_are_not_even_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "run_side_by_side", lambda *_, **__: pytest.fail("trained"))
    done = tmp_path / "speed-limit" / "acs" / "seed-0" / "result.json"
    write_json(done, {"final": {}, "settings": asdict(QUICK) | {"steps": 7}})
    runs = plan(QUICK, tmp_path, tasks=["speed-limit"], methods=["usl"], seeds=[0])
    with pytest.raises(FileFormatError, match=r"usl/seed-0.* has steps 40"):
        run_all(runs, jobs=1, command="", console=Console(quiet=True))


def test_a_curve_whose_row_is_being_written_shows_no_progress(tmp_path):
    (tmp_path / "curve.csv").write_text("step,return_mean\n10,1.0\n20")
    assert experiment._standing(tmp_path) == (0, "")


def test_two_commands_do_not_write_one_seed(tmp_path):
    with one_writer(tmp_path), pytest.raises(ConfigError, match="another command writes there"):
        run_seed(QUICK, tmp_path, command="")


def test_normalised_scores_are_shares_of_the_reference():
    final = dict.fromkeys(
        ("return_mean", "cost_mean", "violation_rate", "safe_share", "corrected_share"), 0.0
    )
    final |= {"return_mean": 25.179, "cost_mean": 53.109}
    seed = {
        "settings": {"seed": 0, "steps": 1},
        "final": final,
        "training_violations": 0,
        "training_cost_rate": 0.063,
        "steps_per_second": 1.0,
    }
    summary = summarise_seeds([seed], find_task("point-goal"))
    for name in ("normalised_return", "normalised_violation", "normalised_cost_rate"):
        assert summary[name]["mean"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [([0.0] * 9, None), ([0, 1, 0, 0, 0, 0, 0], 1), ([1, 0, 1] + [0] * 5, 3), ([1, 0, 0], None)],
)
def test_recovery_lasts_from_the_first_violation_to_five_calm_steps(costs, expected):
    assert recovery_steps([float(cost) for cost in costs]) == expected


def test_scores_count_violating_steps_and_calm_episodes():
    scores = summarise([Episode(1.0, [0.0, 1.0]), Episode(3.0, [0.0, 0.0])])
    assert (scores.return_mean, scores.cost_mean, scores.cost_max) == (2.0, 0.5, 1.0)
    assert (scores.violation_rate, scores.safe_share) == (0.25, 0.5)


def test_the_last_ten_evaluations_count_but_never_more_than_a_fifth():
    scores = summarise([Episode(0.0, [0.0])])
    rows = [curve.Row(step, scores, *(0.0,) * 2, 0, *(0.0,) * 6) for step in range(100)]
    assert final_rows(rows) == rows[90:]
    assert final_rows(rows[:20]) == rows[16:20]
    assert final_rows(rows[:2]) == rows[1:2]


def test_a_plan_lists_methods_of_one_seed_side_by_side_and_each_once(tmp_path):
    methods, seeds = ["acs", "usl", "acs"], [0, 1, 0]
    runs = plan(QUICK, tmp_path, tasks=["speed-limit"] * 2, methods=methods, seeds=seeds)
    assert [run.folder.relative_to(tmp_path).as_posix() for run in runs] == [
        "speed-limit/acs/seed-0",
        "speed-limit/usl/seed-0",
        "speed-limit/acs/seed-1",
        "speed-limit/usl/seed-1",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"episodes": 0},
        {"checkpoint_every": 15},
        {"threads": 0},
        {"policy_delay": 0},
        {"hidden": 0},
        {"seed": -1},
        {"eps": -1.0},
        {"warmup_ratio": 7.0},
    ],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(RangeError):
        replace(QUICK, **options)


@pytest.mark.parametrize(("field", "kind"), [("task", "task"), ("method", "method")])
def test_an_unknown_name_is_answered_with_the_known_ones(field, kind):
    with pytest.raises(UnknownNameError, match=f"unknown {kind}"):
        replace(QUICK, **{field: "acz"})


@pytest.mark.parametrize("words", [["bench", "acs"], ["experiment"]])
def test_both_spellings_of_the_command_list_tasks_and_methods(capsys, words):
    assert main([*words, "--list"]) == 0
    printed = capsys.readouterr().out
    assert "ant-run" in printed
    assert "safety-layer" in printed


def test_no_steps_are_refused_and_not_taken_for_the_steps_of_the_task(tmp_path, capsys):
    assert main(["bench", "acs", "--steps", "0", "--folder", str(tmp_path)]) == 1
    assert "steps" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_the_command_answers_a_wrong_task_with_one_line(capsys):
    assert main(["bench", "acs", "--task", "speedlimit"]) == 1
    assert "did you mean 'speed-limit'?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_seed_ends_with_the_command_that_was_killed(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(POOL, encoding="utf-8")
    with Popen([sys.executable, script], stdout=PIPE, stderr=DEVNULL, text=True) as command:
        seed = os.pidfd_open(int(command.stdout.readline()))
        command.kill()
        ended, _, _ = select.select([seed], [], [], 30.0)
        os.close(seed)
    assert ended


POOL = """
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from threading import Event

from safectl_agents.pool import end_with_parent


def seed():
    print(os.getpid(), flush=True)
    Event().wait()


if __name__ == "__main__":
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        pool.submit(seed)
"""

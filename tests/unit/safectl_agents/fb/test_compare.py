import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from safectl.errors import ConfigError, FileFormatError, UnknownNameError
from safectl.files import write_json
from safectl.models import UpdateSettings
from safectl_agents.bench.benchmark import results_folder
from safectl_agents.cli import main
from safectl_agents.fb import experiment
from safectl_agents.fb.collect import CollectConfig, collect
from safectl_agents.fb.compare import compare, read_curves, table
from safectl_agents.fb.experiment import is_finished, plan, run_all, run_seed
from safectl_agents.fb.settings import FBConfig
from tests.fb_seeds import TASKS, write_seed

LEVELS = {name: dict.fromkeys(TASKS, 1.0) for name in ("random actions", "no action")}
SMALL = FBConfig(nz=4, hidden=8, embedding=8, batch=8, steps=2, labels=20, episodes=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(3):
        write_seed(tmp_path, "fb", seed, {10: 300.0, 20: 100.0 + seed, 30: 0.0})
    write_seed(tmp_path, "vc-fb", 0, {10: 1.0, 20: 200.0})
    write_json(tmp_path / "point_mass_maze" / "references.json", LEVELS)
    return tmp_path


def test_last_and_best_are_taken_where_all_seeds_were_evaluated(folder):
    write_seed(folder, "vc-fb", 1, {10: 3.0, 30: 500.0})
    compare(folder, "point_mass_maze")
    summary = json.loads((folder / "point_mass_maze" / "summary.json").read_text())
    fb, vc = summary["methods"]["fb"], summary["methods"]["vc-fb"]
    assert (fb["last"]["step"], fb["best"]["step"]) == (30, 10)
    assert fb["last"]["iqm"] == {"estimate": 0.0, "low": 0.0, "high": 0.0}
    assert fb["best"]["iqm"]["estimate"] == 300.0
    assert vc["last"]["step"] == 10
    assert vc["last"]["mean"] == 2.0
    assert summary["references"] == LEVELS


def test_a_table_has_methods_by_score_then_the_references(folder):
    lines = compare(folder, "point_mass_maze").read_text().splitlines()
    names = ["| vc-fb", "| fb", "| random actions", "| no action"]
    for table_of in (lines[2:6], lines[9:13]):
        assert [line.split(" | ")[0] for line in table_of] == names
    assert lines[9] == "| vc-fb | 200.0 | 200.0 | 200.0 | 200.0 |"
    assert "300.0 [300.0, 300.0] (10)" in lines[3]
    assert (folder / "point_mass_maze" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    with (folder / "point_mass_maze" / "scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3 * 3 + 2
    assert compare(folder, "walker") is None
    with pytest.raises(StopIteration):
        table({}, {})


def test_seeds_that_share_no_evaluation_and_damaged_results_are_refused(folder):
    place = folder / "point_mass_maze"
    write_seed(folder, "vc-fb", 1, {15: 3.0})
    with pytest.raises(FileFormatError, match="every seed"):
        read_curves(place)
    (place / "vc-fb" / "seed-1" / "result.json").write_text("{}")
    with pytest.raises(FileFormatError, match="is no result"):
        read_curves(place)
    assert read_curves(folder / "nowhere") == {}


@pytest.mark.parametrize(
    ("method", "config", "facts", "problem"),
    [
        ("fb", {"hidden": 256}, {}, r"hidden 256, .*fb/seed-0/result\.json has 1024"),
        ("fb", {"update": {"learning_rate": 1e-3}}, {}, r"update\.learning_rate 0\.001"),
        ("fb", {"update": {"method": "vc-fb"}}, {}, r"update\.method 'vc-fb'"),
        ("fb", {}, {"episodes_of_the_data": 2}, "episodes_of_the_data 2"),
        ("fb", {}, {"data_sha256": "b"}, "data_sha256 'b'"),
        ("vc-fb", {"batch": 256}, {}, r"batch 256, .*fb/seed-0/result\.json has 512"),
        ("vc-fb", {"update": {"method": "vc-fb", "budget": 9.0}}, {}, r"update\.budget"),
        ("sf-lap", {"update": {"mix": 0.1}}, {}, r"update\.mix"),
        ("td3", {"observation_scale": [2.0] * 4}, {}, "observation_scale"),
    ],
)
def test_unlike_runs_are_not_compared(tmp_path, method, config, facts, problem):
    write_seed(tmp_path, "fb", 0, {10: 1.0}, facts={"data_sha256": "a"})
    write_seed(tmp_path, method, 1, {10: 1.0}, config=config, facts=facts)
    with pytest.raises(FileFormatError, match=rf"{method}/seed-1/result\.json: has {problem}"):
        read_curves(tmp_path / "point_mass_maze")


def test_seeds_may_differ_in_how_long_and_where_they_ran_and_methods_in_what_makes_them(tmp_path):
    fast = {"learning_rate": 1e-3, "method": "vc-fb", "discount": 0.98}
    free = {"steps": 7, "device": "cuda:7", "threads": 3, "keep": 9, "log_every": 1}
    write_seed(tmp_path, "td3", 0, {10: 1.0})
    write_seed(tmp_path, "sf-lap", 0, {10: 1.0}, config={"update": {"budget": 9.0}})
    write_seed(tmp_path, "vc-fb", 0, {10: 1.0}, config={"update": fast})
    write_seed(tmp_path, "vc-fb", 1, {10: 1.0}, config={"update": fast, **free})
    aw = {**fast, "method": "fb", "actor": "aw"}
    write_seed(tmp_path, "fb-aw", 0, {10: 1.0}, config={"update": aw, "evaluate_every": 3})
    found = read_curves(tmp_path / "point_mass_maze")
    assert list(found) == ["fb-aw", "sf-lap", "td3", "vc-fb"]
    assert found["vc-fb"].seeds == (0, 1)


def test_the_recorded_seeds_are_alike():
    found = read_curves(results_folder() / "fb" / "point_mass_maze")
    assert {name: curves.seeds for name, curves in found.items()} == dict.fromkeys(
        ("fb", "mc-fb", "vc-fb"), (0, 1, 2)
    )


def test_a_seed_unlike_the_finished_ones_is_not_even_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "run_side_by_side", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(experiment, "episode_paths", lambda _: [tmp_path])
    monkeypatch.setattr(experiment, "digest_of_data", lambda _: "a")
    write_seed(tmp_path, "fb", 0, {10: 1.0})
    runs = plan(SMALL, tmp_path, tmp_path, methods=["vc-fb"], seeds=[0])
    with pytest.raises(FileFormatError, match=r"vc-fb/seed-0/result\.json: has nz 4, .*has None"):
        run_all(runs, jobs=1, command="", console=Console(quiet=True))


def test_methods_vary_fastest_and_get_their_variant(tmp_path):
    runs = plan(SMALL, tmp_path, tmp_path, methods=["fb-aw", "cql"], seeds=[3, 4])
    assert [(run.method, run.config.seed) for run in runs] == [
        ("fb-aw", 3), ("cql", 3), ("fb-aw", 4), ("cql", 4),
    ]  # fmt: skip
    assert (runs[0].config.update.method, runs[0].config.update.actor) == ("fb", "aw")
    assert runs[3].folder == tmp_path / "point_mass_maze" / "cql" / "seed-4"
    with pytest.raises(UnknownNameError, match="td3-bc"):
        plan(SMALL, tmp_path, tmp_path, methods=["td4"], seeds=[0])


def test_every_method_and_seed_is_planned_once(tmp_path):
    runs = plan(SMALL, tmp_path, tmp_path, methods=["td3", "fb", "td3"], seeds=[4, 3, 4, 3])
    assert [(run.method, run.config.seed) for run in runs] == [
        ("td3", 4), ("fb", 4), ("td3", 3), ("fb", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["td3", "td3-bc", "cql", "gc-iql", "sf-lap"])
def test_a_baseline_refuses_settings_that_it_does_not_read(tmp_path, method):
    faster = replace(SMALL, update=UpdateSettings(learning_rate=1e-3))
    with pytest.raises(ConfigError, match=rf"--update\.learning-rate: is not read by {method};"):
        plan(faster, tmp_path, tmp_path, methods=["fb", method], seeds=[0])
    mixed = replace(SMALL, update=UpdateSettings(mix=0.25))
    if method == "sf-lap":
        (run,) = plan(mixed, tmp_path, tmp_path, methods=[method], seeds=[0])
        assert run.config.update.mix == 0.25
    else:
        with pytest.raises(ConfigError, match=r"--update\.mix"):
            plan(mixed, tmp_path, tmp_path, methods=[method], seeds=[0])


def test_the_command_names_the_option_that_a_baseline_does_not_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--method", "fb", "cql", "--update.target-heads", "mean"]
    assert main(["bench", "fb", *words]) == 1
    assert "--update.target-heads: is not read by cql" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_finished_seed_stays_and_more_steps_go_on_from_it(tmp_path, monkeypatch):
    data = collect(CollectConfig(collector="random", episodes=1), tmp_path / "data")
    (run,) = plan(SMALL, data, tmp_path, methods=["fb"], seeds=[0])
    monkeypatch.setattr(
        experiment, "run_side_by_side", lambda works, **_: [work.run() for work in works]
    )
    options = {"jobs": 1, "command": "the command", "console": Console(quiet=True)}
    run_all([run], **options)
    assert is_finished(run)
    before = (run.folder / "result.json").stat().st_mtime_ns
    run_all([run], **options)
    assert (run.folder / "result.json").stat().st_mtime_ns == before
    longer = replace(run, config=replace(run.config, steps=3))
    run_seed(longer, command="again")
    result = json.loads((run.folder / "result.json").read_text())
    assert (result["command"], result["last"]["step"]) == ("again", 3)
    assert result["config"]["steps"] == 3
    assert (run.folder / "evaluations.csv").read_text().count("\n") == 3
    other = replace(run, config=replace(run.config, nz=5))
    with pytest.raises(ConfigError, match="nz was 4"):
        run_all([other], **options)
    (baseline,) = plan(SMALL, data, tmp_path, methods=["td3"], seeds=[0])
    with pytest.raises(ConfigError, match="not of td3"):
        run_all([replace(baseline, folder=run.folder)], **options)
    np.testing.assert_array_equal(read_curves(tmp_path / "point_mass_maze")["fb"].steps, [2, 3])


@pytest.mark.slow
def test_the_command_trains_in_processes_of_their_own_and_prints_the_table(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    collect(CollectConfig(collector="random", episodes=1), tmp_path / "data")
    small = "--nz 4 --hidden 8 --embedding 8 --batch 8 --steps 2 --episodes 2 --labels 20"
    words = ["bench", "fb", "--method", "fb", "gc-iql", "--seeds", "0", *small.split()]
    assert main([*words, "--data", "data/buffer"]) == 0
    shown = capsys.readouterr().out
    assert "gc-iql" in shown
    written = (tmp_path / "runs/fb/point_mass_maze/summary.md").read_text()
    assert "| scripted controller |  |  | 793.0 | 772.2 |  |" in written
    assert main(["bench", "fb", "--list"]) == 0
    assert "td3-bc" in capsys.readouterr().out
    assert main(["bench", "fb", "--jobs", "0"]) == 1

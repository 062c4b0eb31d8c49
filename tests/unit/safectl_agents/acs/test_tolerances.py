"""One trained agent at several tolerances: the same agent, other bounds, and what is refused."""

import json
from dataclasses import replace

import pytest

from safectl.errors import ConfigError, FileFormatError, RangeError
from safectl_agents.acs import curve, seed_run
from safectl_agents.acs.evaluation import evaluate
from safectl_agents.acs.saved import restore
from safectl_agents.acs.seed_run import RunSettings, run_seed
from safectl_agents.acs.tasks import find_task
from safectl_agents.acs.tolerances import sweep
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
    eps=0.02,
    warmup_ratio=0.0,
)


@pytest.fixture(scope="module", autouse=True)
def _early():
    """Let updates begin at step 5 with small networks."""
    task = replace(find_task("speed-limit"), learning_starts=5, hidden=(8,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seed_run, "find_task", lambda _: task)
        yield


@pytest.fixture(scope="module")
def seed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "seed-3"
    run_seed(RUN, folder, command="")
    return folder


def test_its_own_tolerance_gives_the_last_evaluation_and_the_widest_that_without_a_safeguard(seed):
    own, wide = sweep(seed, [RUN.eps, 1e6], episodes=1, seed=RUN.seed)
    last = curve.read(seed / "curve.csv")[-1].scores
    assert own.tolerance == RUN.eps
    assert own.scores.return_mean == pytest.approx(last.return_mean, rel=1e-5)
    assert own.scores.cost_mean == pytest.approx(last.cost_mean)
    settings, model = restore(seed)
    assert settings == RUN
    bare = evaluate(model, [make_env("safectl/SpeedLimit-v0")], RUN.seed, guarded=False)
    assert wide.scores.return_mean == bare.return_mean != own.scores.return_mean


def test_the_command_leaves_table_and_picture(seed, capsys):
    words = ["experiment", "tolerances", str(seed), "--eps", "0.02", "0.5", "--episodes", "1"]
    assert main(words) == 0
    assert "another --seed" in capsys.readouterr().out
    table = json.loads((seed / "tolerances.json").read_text())
    assert [row["tolerance"] for row in table["tolerances"]] == [0.02, 0.5]
    assert table["episodes"] == 1
    assert (seed / "tolerances.png").read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["table"] == str(seed / "tolerances.json")


def test_what_cannot_be_swept_is_refused(seed, tmp_path, capsys):
    for eps in (0.0, -1.0, float("nan")):
        with pytest.raises(RangeError, match="tolerance"):
            list(sweep(seed, [eps], episodes=1, seed=0))
    bare = tmp_path / "bare"
    run_seed(replace(RUN, method="td3"), bare, command="")
    with pytest.raises(ConfigError, match="no learned layer"):
        list(sweep(bare, [0.1], episodes=1, seed=0))
    multiplier = tmp_path / "multiplier"
    run_seed(replace(RUN, method="td3-lag"), multiplier, command="")
    with pytest.raises(ConfigError, match="no tolerance"):
        list(sweep(multiplier, [0.1], episodes=1, seed=0))
    (multiplier / "result.json").unlink()
    with pytest.raises(ConfigError, match="no finished seed"):
        list(sweep(multiplier, [0.1], episodes=1, seed=0))
    with pytest.raises(FileFormatError, match="settings"):
        restore(tmp_path / "nowhere")
    assert main(["experiment", "tolerances"]) == 1
    assert main(["experiment", "tolerances", str(seed), "--episodes", "0"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_model_is_refused(seed, tmp_path):
    whole = (seed / "model.zip").read_bytes()
    try:
        (seed / "model.zip").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(FileFormatError, match="cannot be read"):
            restore(seed)
    finally:
        (seed / "model.zip").write_bytes(whole)

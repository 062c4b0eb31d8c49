"""The command line: what people type, what they get wrong, and what they are told."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from safectl.export import interpret, load_program
from safectl.export.importers import import_model
from safectl.spec import Signal, Spec
from safectl_agents.cli import COMMANDS, main
from safectl_agents.commands.demo import DemoSettings
from safectl_agents.guards import choose_guard
from safectl_envs.catalogue import find_world

MODELS = Path(__file__).parents[2] / "golden" / "models"
TINY = ["--steps", "64", "--n-envs", "2", "--ppo.rollout", "16", "--ppo.batch-size", "32"]


def trained(folder, *, env="safectl/SpeedLimit-v0", guard="limits"):
    arguments = ["train", "--env", env, "--folder", str(folder), "--guard", guard, *TINY]
    assert main(arguments) == 0
    return folder


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_its_options(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_unknown_command_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


def test_unknown_option_exits_with_two(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--stpes", "10"])
    assert stop.value.code == 2
    assert "stpes" in capsys.readouterr().err


def test_train_evaluate_export_verify(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    assert (folder / "curves.png").stat().st_size > 1000
    assert main(["evaluate", str(folder), "--episodes", "2", "--json"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert json.loads(lines[-1])["episodes"][0]["length"] == 200
    assert main(["export", str(folder)]) == 0
    assert main(["verify", str(folder / "export"), "--rows", "20", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert report["host"]["rows"] == report["board"]["rows"] == 20
    assert report["board"]["flash_bytes"] > 0


def test_export_for_a_board_makes_firmware_that_can_be_flashed(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    assert main(["export", str(folder), "--board", "netduinoplus2"]) == 0
    said = capsys.readouterr().out
    assert "firmware.elf fits on netduinoplus2" in said
    assert "of 1,048,576 B of flash" in said
    assert main(["flash", str(folder / "export"), "--tool", "dfu-util", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("dfu-util -d 0483:df11 -a 0 -s 0x08000000 -D ")
    words = ["export", str(folder), "--output", str(tmp_path / "teensy"), "--board", "teensy41"]
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["board"]["is_firmware"] is False
    assert 0 < facts["board"]["flash_bytes"] < 100_000
    assert main(["export", str(folder), "--board", "teensy42"]) == 1
    assert "did you mean 'teensy41'" in capsys.readouterr().err


def test_evaluate_draws_an_episode(tmp_path):
    folder = trained(tmp_path / "run")
    assert main(["evaluate", str(folder), "--episodes", "2", "--gif"]) == 0
    assert (folder / "episode.gif").stat().st_size > 1000


def test_resume_goes_on_with_the_stored_settings(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    assert main(["train", "--resume", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["steps"] == 64
    assert main(["train", "--resume", str(folder), "--until", "128", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["steps"] == 128


@pytest.mark.parametrize("option", [["--steps", "128"], ["--guard", "none"], ["--seed", "1"]])
def test_a_resumed_run_refuses_options_that_it_would_ignore(tmp_path, capsys, option):
    folder = trained(tmp_path / "run")
    assert main(["train", "--resume", str(folder), *option]) == 1
    assert "only --until may be given" in capsys.readouterr().err


def test_config_file_is_read_and_overridden(tmp_path, capsys):
    config = tmp_path / "a.toml"
    config.write_text(
        f'guard = "none"\nfolder = "{tmp_path}/run"\n[run]\nenv = "safectl/SpeedLimit-v0"\n'
        "steps = 32\nn_envs = 2\n[run.ppo]\nrollout = 16\nbatch_size = 32\n"
    )
    assert main(["train", "--config", str(config), "--seed", "3", "--json"]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 3
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["steps"] == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--env", "safectl/PointHazrd-v0"], "did you mean 'safectl/PointHazard-v0'"),
        (["train", "--env", "CartPole-v1"], "expected a one-dimensional Box"),
        (["train", "--env", "Pendulum-v1", "--guard", "barrier"], "does not fit Pendulum-v1"),
        (["train", "--env", "safectl/PointHazard-v0", "--guard", "speed"], "does not fit"),
        (["train", "--resume", "nowhere"], "nowhere/config.json: does not exist"),
        (["train", "--device", "foo"], "device is 'foo'"),
        (["train", "--device", "cuda"], "device is 'cuda'"),
        (["train", "--ppo.hidden", "-5"], "ppo.hidden"),
        (["train", "--env", "a b"], "a b"),
        (["train", "--env", "foo:bar-v0"], "foo"),
        (["demo", "--folder", "/proc/demo"], "could not be written"),
        (["train", "--config", "nowhere.toml"], r"nowhere\.toml: cannot be read"),
        (["train", "--config"], "needs the path of a TOML file"),
        (["evaluate"], "name the folder of a training run"),
        (["evaluate", "nowhere"], "does not exist"),
        (["evaluate", "nowhere", "--episodes", "1"], "episodes is 1, expected at least 2"),
        (["export", "nowhere"], "does not exist"),
        (["export", f"{MODELS}/keras3_mlp.h5", "--format", "int8"], "needs --calibration FILE"),
        (["export", f"{MODELS}/keras3_mlp.h5", "--calibration", "x.npy"], "belongs to --format"),
        (
            ["export", f"{MODELS}/keras3_mlp.h5", "--format", "int8", "--calibration", "x.npy"],
            "holds no observations",
        ),
        (["verify", "nowhere"], "nowhere"),
        (["envs", "nowhere"], "unknown environment"),
        (["bench", "foundation.nothing"], "unknown benchmark"),
        (["bench", "nothing."], "unknown benchmark"),
    ],
)
def test_wrong_calls_give_one_clear_error(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert len([line for line in shown.splitlines() if line.startswith("error: ")]) == 1
    assert re.search(message, shown)
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_overwritten(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    before = (folder / "config.json").read_bytes()
    arguments = ["train", "--env", "safectl/SpeedLimit-v0", "--folder", str(folder), *TINY]
    assert main(arguments) == 1
    assert "go on with: safectl train --resume" in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == before


def test_an_export_is_not_overwritten(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    assert main(["export", str(folder)]) == 0
    assert main(["export", str(folder)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_model_file_is_exported_with_the_limits_of_its_signals(tmp_path, capsys):
    signals = tmp_path / "signals.json"
    actions = tuple(Signal(f"u{i}", "1", -0.1, 0.1) for i in range(3))
    doors = tuple(Signal(f"x{i}", "1", -9.0, 9.0) for i in range(36))
    signals.write_text(Spec(doors, actions, 0.01).to_json())
    words = ["export", str(MODELS / "keras3_mlp.keras"), "--output", str(tmp_path / "out")]
    assert main([*words, "--spec", str(signals)]) == 0
    assert load_program(tmp_path / "out" / "program").spec.action == actions
    assert main(["verify", str(tmp_path / "out"), "--rows", "20", "--json"]) == 0
    assert main(["export", str(MODELS / "keras3_mlp.npz")]) == 1
    assert "is a ZIP archive without metadata.json" in capsys.readouterr().err


@pytest.mark.parametrize("bits", ["int8", "int16"])
def test_integers_are_exported_with_calibration_data_for_a_build_system(bits, tmp_path, capsys):
    rows = np.random.default_rng(0).standard_normal((60, 36)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    words = ["export", str(MODELS / "keras3_mlp.keras"), "--output", str(tmp_path / "out")]
    words += ["--format", bits, "--calibration", str(tmp_path / "rows.npy")]
    assert main([*words, "--layout", "platformio"]) == 0
    bound = float(re.search(r"within (\S+) of float32", capsys.readouterr().err)[1])
    exact = import_model(MODELS / "keras3_mlp.keras", name="controller")
    program = load_program(tmp_path / "out" / "program")
    difference = np.abs(interpret(program, rows).action - interpret(exact, rows).action).max()
    assert 0.0 < difference <= bound
    assert (tmp_path / "out" / "c" / "platformio.ini").is_file()
    assert main(["verify", str(tmp_path / "out"), "--rows", "20", "--json"]) == 0


def test_a_barrier_over_an_observed_state_is_exported_with_the_policy(tmp_path, capsys):
    folder = trained(tmp_path / "run", env="safectl/DoubleIntegrator-v0", guard="barrier")
    assert main(["export", str(folder)]) == 0
    program = load_program(folder / "export" / "program")
    world = find_world("DoubleIntegrator")
    states = world.initial(200, torch.Generator().manual_seed(0))
    states[:, :4] *= 1.3  # towards the edge, so that the barrier binds and sometimes cannot be kept
    steps = interpret(program, world.observe(states).numpy())
    assert {*steps.status} >= {0, 1}
    assert steps.margin[steps.status < 2].min() >= 0.0
    action = torch.from_numpy(steps.action)
    after = world.dynamics.predict(states[:, :4], action).mean
    margin = world.barrier.value(after).amin(1).numpy()
    assert np.allclose(margin, steps.margin, atol=1e-5)


def test_a_barrier_over_a_hidden_state_is_not_exported_silently(tmp_path, capsys):
    folder = trained(tmp_path / "run", env="safectl/PointHazard-v0", guard="barrier")
    assert main(["export", str(folder)]) == 1
    shown = capsys.readouterr().err
    assert "cannot export a barrier over the entries [0, 1, 2, " in shown
    assert "which the sensors do not show" in shown
    assert not (folder / "export").exists()


def test_a_guard_that_is_not_calibrated_is_said_so_and_not_exported(tmp_path, capsys):
    folder = trained(tmp_path / "run", env="SafetySwimmerVelocity-v1", guard="speed")
    assert main(["evaluate", str(folder), "--episodes", "2", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out.strip().splitlines()[-1])["calibrated"] is False
    assert "measured on the policy that explored" in shown.err
    assert main(["export", str(folder)]) == 1
    assert "holds a guard that is not calibrated" in capsys.readouterr().err


def test_a_truncated_checkpoint_is_named(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    weights = next(folder.glob("checkpoints/*/policy.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    assert main(["evaluate", str(folder), "--episodes", "2"]) == 1
    assert "policy.safetensors: is truncated or altered" in capsys.readouterr().err


def test_a_missing_extra_names_itself(monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="stable_baselines3")

    monkeypatch.setattr("importlib.import_module", missing)
    assert main(["train"]) == 1
    assert "pip install -e '.[agents]'" in capsys.readouterr().err


def test_a_missing_compiler_names_its_package(tmp_path, monkeypatch, capsys):
    folder = trained(tmp_path / "run")
    assert main(["export", str(folder)]) == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["verify", str(folder / "export")]) == 1
    assert "apt-get install gcc" in capsys.readouterr().err


def test_auto_chooses_the_strongest_guard_that_fits():
    assert choose_guard("auto", "safectl/PointHazard-v0") == "barrier"
    assert choose_guard("auto", "SafetySwimmerVelocity-v1") == "speed"
    assert choose_guard("auto", "SafetyPointGoal1-v0") == "none"
    assert choose_guard("auto", "SafetyHumanoidVelocity-v1") == "none"


def test_envs_lists_and_describes(capsys):
    assert main(["envs", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {"safectl/PointHazard-v0", "SafetyPointGoal1-v0"} <= {e["id"] for e in entries}
    assert main(["envs", "safectl/CartPoleStab-v0", "--json"]) == 0
    signals = json.loads(capsys.readouterr().out)["signals"]
    assert signals["observation"][0]["unit"] == "m"
    assert main(["envs", "safectl/CartPoleStab-v0"]) == 0
    assert "rad/s" in capsys.readouterr().out


def test_bench_lists_targets(capsys):
    assert main(["bench", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) > 10
    groups = {row["name"].partition(".")[0] for row in listed}
    assert groups >= {"foundation", "mcu", "ros", "acs", "safediffuser", "fb"}
    assert all(math.isfinite(row["target"]) for row in listed)
    assert all(
        row["last"]["details"].get("seed", row["last"]["details"].get("seeds")) is not None
        for row in listed
        if row["last"]
    )


def test_demo_refuses_senseless_settings():
    for wrong in ({"steps": 10}, {"episodes": 1}, {"frames": 0}, {"seed": -1}):
        with pytest.raises(Exception, match=f"{next(iter(wrong))} is"):
            DemoSettings(**wrong)


def test_the_console_script_is_installed():
    script = Path(sys.executable).with_name("safectl")
    answer = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "usage: safectl COMMAND" in answer.stdout

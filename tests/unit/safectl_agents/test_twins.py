"""The two processes of the demo: what happens when one of them dies."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from safectl_agents.demo import twins
from safectl_agents.demo.twins import Twin, TwinFailed, run_twins
from safectl_agents.settings import TrainConfig


def pair(tmp_path: Path, env: str) -> list[Twin]:
    config = TrainConfig(env=env, steps=64)
    return [Twin(name, config, "none", tmp_path / name) for name in ("one", "two")]


@pytest.mark.slow
def test_an_error_in_a_process_is_told(tmp_path):
    with pytest.raises(TwinFailed, match="unknown environment 'safectl/Nothing-v0'"):
        run_twins(pair(tmp_path, "safectl/Nothing-v0"), Console(quiet=True), episodes=2, frames=1)


def die(*_arguments):
    os._exit(3)


@pytest.mark.slow
def test_a_process_that_dies_without_a_word_ends_the_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(twins, "_run", die)
    with pytest.raises(TwinFailed, match="its process ended with exit code 3"):
        run_twins(
            pair(tmp_path, "safectl/SpeedLimit-v0"), Console(quiet=True), episodes=2, frames=1
        )

"""The main job, shortened: it must run whole and the board must equal the host."""

import json

import pytest

from safectl_agents.cli import main


@pytest.mark.slow
def test_the_demo_runs_whole(tmp_path, capfd):
    arguments = ["demo", "--folder", str(tmp_path), "--steps", "24000", "--episodes", "2"]
    assert main([*arguments, "--frames", "3", "--json"]) == 0
    results = json.loads(capfd.readouterr().out)
    assert results["board"]["equal"] == results["board"]["steps"] == 1000
    assert results["board"]["torch_difference"] <= 1e-5
    folder = tmp_path / "run-1"
    made = {"curves.png", "episode.gif", "results.json", "board", "guarded", "unguarded"}
    assert made <= {path.name for path in folder.iterdir()}
    assert (folder / "board" / "c" / "sf_guarded.c").exists()

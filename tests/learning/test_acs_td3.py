"""ACS on TD3 learns a task so small that failing to learn it is a bug."""

from dataclasses import replace

import pytest
import torch

from safectl_agents.acs import curve, seed_run
from safectl_agents.acs.seed_run import RunSettings, run_seed
from safectl_agents.acs.tasks import find_task


@pytest.mark.slow
def test_acs_learns_to_drive_at_the_speed_limit_and_its_guard_keeps_it(tmp_path, monkeypatch):
    task = replace(find_task("speed-limit"), learning_starts=500, hidden=(32, 32))
    monkeypatch.setattr(seed_run, "find_task", lambda _: task)
    settings = RunSettings(
        "speed-limit", "acs", 3_000, 0, evaluate_every=600, episodes=2, checkpoint_every=3_000
    )
    run_seed(settings, tmp_path, command="")
    first, *_, last = curve.read(tmp_path / "curve.csv")
    assert last.scores.return_mean > 150.0 > first.scores.return_mean
    assert last.scores.cost_mean < 0.5 * last.bare_cost
    assert last.corrected_share > 0.1
    assert torch.get_num_threads() == 1

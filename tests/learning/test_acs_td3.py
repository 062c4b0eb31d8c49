"""ACS on TD3 learns a task so small that failing to learn it is a bug."""

from dataclasses import replace

import pytest
import torch

from safectl_agents.acs import curve, seed_run
from safectl_agents.acs.lower import Proposed
from safectl_agents.acs.seed_run import RunSettings, run_seed
from safectl_agents.acs.tasks import find_task
from safectl_agents.acs.td3 import ACSTD3
from safectl_agents.models import make_env

HORIZON = 200  # steps per episode
SEED = 0


@pytest.mark.slow
def test_acs_learns_to_drive_and_its_guard_keeps_even_full_throttle_at_the_limit(
    tmp_path, monkeypatch
):
    task = replace(find_task("speed-limit"), learning_starts=500)
    monkeypatch.setattr(seed_run, "find_task", lambda _: task)
    settings = RunSettings(
        "speed-limit",
        "acs",
        2_000,
        SEED,
        evaluate_every=1_000,
        episodes=3,
        checkpoint_every=2_000,
        warmup_ratio=0.6,
    )
    run_seed(settings, tmp_path, command="")
    last = curve.read(tmp_path / "curve.csv")[-1]
    assert last.scores.return_mean > 100.0  # of about 275; 4 without training
    assert last.scores.cost_mean < 0.05 * HORIZON
    assert last.corrected_share > 0.05
    model = ACSTD3.load(tmp_path / "model.zip", device="cpu")
    assert full_throttle(model, guarded=False) > 0.7 * HORIZON
    assert full_throttle(model, guarded=True) < 0.1 * HORIZON


def full_throttle(model: ACSTD3, *, guarded: bool) -> float:
    """Return the violating steps of an episode of (1, 0), through the trained guard or not."""
    env, cost = make_env("safectl/SpeedLimit-v0"), 0.0
    observation, _ = env.reset(seed=1)
    proposal = torch.tensor([[1.0, 0.0]])
    for _ in range(HORIZON):
        action = proposal
        if guarded:
            row = torch.as_tensor(observation, dtype=torch.float32).reshape(1, -1)
            proposed = Proposed(row, proposal, torch.zeros(1, 1))
            action = model.lower.correct(proposed, model.actors).action
        observation, _, _, _, info = env.step(action[0].numpy())
        cost += info["cost"]
    return cost
